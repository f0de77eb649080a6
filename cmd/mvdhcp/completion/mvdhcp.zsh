#compdef mvdhcp
# SPDX-License-Identifier: Apache-2.0

_mvdhcp() {
  local -a all open closed
  all=(${(f)"$("${(Q)words[1]}" __complete "${(@Q)words[2,CURRENT]}" 2>/dev/null)"})
  open=(${(M)all:#*[:=]})
  closed=(${all:#*[:=]})
  (( $#closed )) && compadd -- $closed
  (( $#open )) && compadd -S '' -- $open
  (( $#all ))
}

# Loaded by compinit the file is the function; sourced it is not.
if [[ ${funcstack[1]} == _mvdhcp ]]; then
  _mvdhcp "$@"
else
  compdef _mvdhcp mvdhcp
fi
