// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"mvdhcp/internal/lab"
)

func main() {
	flag.Usage = func() { fmt.Fprintln(os.Stderr, "usage: demo (as root)") }
	flag.Parse()
	if flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	undisturbed := context.AfterFunc(ctx, func() {
		// The lab's watchdog takes down what is there.
		fmt.Fprintln(os.Stderr, "\ndemo: stopped, cleaning up")
		os.Exit(130)
	})
	err := lab.Run(context.Background(), logf, tell)
	if !undisturbed() {
		select {} // until the process ends
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
	fmt.Println(dim("The LAN, the host and the keeper are gone. Nothing is left of them."))
}

// logf shows what the lab has to say, which is only when something failed.
func logf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}
