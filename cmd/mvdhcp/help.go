// SPDX-License-Identifier: Apache-2.0

package main

import "strings"

const appHelp = `NAME:
   {{.Name}} - {{.Usage}}

USAGE:
   {{.Name}} [--socket SOCKET] COMMAND [FLAGS] [ARGUMENT]

   One keeper (mvdhcp serve) a host holds the DHCP leases of macvlan children
   that live in the namespaces of containers; the other commands talk to it.
   mvdhcp COMMAND --help tells more of a command and shows an example.

COMMANDS:{{range .VisibleCommands}}
   {{join .Names ", "}}{{"\t"}}{{.Usage}}{{end}}

GLOBAL OPTIONS:{{range .VisibleFlags}}
   {{.}}{{end}}

TARGET:
   NAME or ID, docker:NAME     a container
   netns:NAME, netns:/PATH     a network namespace (ip netns)
   pid:N                       the network namespace of a process

EXAMPLE:
   mvdhcp attach web --parent ens192.100
   mvdhcp leases
   mvdhcp detach web
` + statusHelp + `
ENVIRONMENT:
   MVDHCP_SOCKET      --socket
   MVDHCP_STATE_DIR   --state-dir of serve, and of a keeper that attach starts
   DOCKER_HOST        the engine in which containers are looked for

FILES:
   ` + defaultSocket + `   the keeper's socket
   ` + defaultStateDir + `           leases, and the log of a keeper that attach started (keeper.log)
`

const commandHelp = `NAME:
   {{.HelpName}} - {{.Usage}}

USAGE:
   {{.UsageText}}

{{.Description}}

OPTIONS:{{range .VisibleFlags}}
   {{.}}{{end}}

GLOBAL OPTIONS:
   --socket SOCKET{{"\t"}}the keeper's SOCKET; without it $MVDHCP_SOCKET counts (default: ` + defaultSocket + `)
` + statusHelp

const statusHelp = `
EXIT STATUS:
   0 done, 1 failed, 2 wrong usage, 3 no DHCP server answered in time,
   4 address conflict, 5 keeper not reachable, 130 interrupted and undone
`

// describeCommand lays out the description of a command and its example.
func describeCommand(text string, examples ...string) string {
	var b strings.Builder
	b.WriteString("DESCRIPTION:\n")
	indent(&b, strings.Split(strings.TrimSpace(text), "\n"))
	b.WriteString("\nEXAMPLE:\n")
	indent(&b, examples)
	return strings.TrimRight(b.String(), "\n")
}

func indent(b *strings.Builder, lines []string) {
	for _, l := range lines {
		b.WriteString(strings.TrimRight("   "+strings.TrimSpace(l), " ") + "\n")
	}
}
