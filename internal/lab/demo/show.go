// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/term"
)

var colour = term.IsTerminal(int(os.Stdout.Fd())) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"

func paint(code, s string) string {
	if !colour {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func bold(s string) string { return paint("1", s) }
func dim(s string) string  { return paint("2", s) }

var steps int

// step begins the next part of the story.
func step(format string, args ...any) {
	steps++
	fmt.Println()
	fmt.Println(bold(fmt.Sprintf("%d. "+format, append([]any{steps}, args...)...)))
}

// say adds a line to it.
func say(format string, args ...any) {
	fmt.Printf("   "+format+"\n", args...)
}

// command shows what a user would type.
func command(args ...string) {
	fmt.Println("   " + paint("36", "$ mvdhcp "+strings.Join(args, " ")))
}

// output shows what the command printed.
func output(text string) {
	for line := range strings.Lines(strings.TrimRight(text, "\n")) {
		fmt.Println("   " + strings.TrimRight(line, "\n"))
	}
}
