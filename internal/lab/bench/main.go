// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"time"

	"mvdhcp/internal/lab"
)

type options struct {
	children int
	turns    int
	pause    time.Duration
}

func main() {
	var o options
	flag.IntVar(&o.children, "children", 100, "children on the LAN beside the one that is measured")
	flag.IntVar(&o.turns, "turns", 20, "how often each way is measured")
	flag.DurationVar(&o.pause, "pause", 60*time.Millisecond, "time between two measurements")
	asJSON := flag.Bool("json", false, "print JSON")
	flag.Parse()
	if flag.NArg() > 0 || o.children < 0 || o.turns < 1 {
		flag.Usage()
		os.Exit(2)
	}
	var r report
	err := lab.Run(context.Background(), func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, format+"\n", args...)
	}, func(l *lab.Lab) (err error) {
		r, err = measure(l, o)
		return err
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	if !*asJSON {
		r.print(os.Stdout)
		return
	}
	e := json.NewEncoder(os.Stdout)
	e.SetIndent("", "  ")
	if err := e.Encode(r); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}
