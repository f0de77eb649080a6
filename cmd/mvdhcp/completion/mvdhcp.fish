# SPDX-License-Identifier: Apache-2.0
# fish completion of mvdhcp

function __mvdhcp_complete
    set -l words (commandline -opc)
    $words[1] __complete $words[2..-1] (commandline -ct | string collect --allow-empty) 2>/dev/null
end

complete -c mvdhcp -f -a '(__mvdhcp_complete)'
