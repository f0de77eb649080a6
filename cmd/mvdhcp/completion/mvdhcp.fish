# SPDX-License-Identifier: Apache-2.0
# fish completion of mvdhcp

function __mvdhcp_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    $words[1] __complete $words[2..-1] "$current" 2>/dev/null
end

complete -c mvdhcp -f -a '(__mvdhcp_complete)'
