# SPDX-License-Identifier: Apache-2.0
# bash completion of mvdhcp

_mvdhcp() {
	local line=${COMP_LINE:0:COMP_POINT} words cur head breaks='' i
	# bash splits words at ":" and "=" too, which targets and flags contain.
	read -ra words <<<"$line"
	[[ $line == *[[:space:]] ]] && words+=('')
	for i in "${!words[@]}"; do # words before the command: sudo, X=1
		[[ ${words[i]} == "${COMP_WORDS[0]}" ]] && break
		unset "words[i]"
	done
	words=("${words[@]}")
	cur=${words[${#words[@]} - 1]}
	mapfile -t COMPREPLY < <("${words[0]}" __complete "${words[@]:1}" 2>/dev/null)
	# What readline replaces begins after the last such sign.
	for i in : =; do
		[[ $COMP_WORDBREAKS == *$i* ]] && breaks+=$i
	done
	if [[ -n $breaks && $cur == *[$breaks]* ]]; then
		head=${cur%"${cur##*[$breaks]}"}
		COMPREPLY=("${COMPREPLY[@]#"$head"}")
	fi
	if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[:=] ]]; then
		compopt -o nospace 2>/dev/null
	fi
	return 0
}

complete -F _mvdhcp mvdhcp
