// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"

	"mvdhcp/internal/lab"
)

func main() {
	turns := flag.Int("turns", 30, "how often each network is measured")
	asJSON := flag.Bool("json", false, "print JSON")
	flag.Parse()
	if flag.NArg() > 0 || *turns < 1 {
		flag.Usage()
		os.Exit(2)
	}
	var r report
	err := lab.Run(context.Background(), func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, format+"\n", args...)
	}, func(l *lab.Lab) (err error) {
		r, err = measure(l, *turns)
		return err
	})
	if err == nil && *asJSON {
		e := json.NewEncoder(os.Stdout)
		e.SetIndent("", "  ")
		err = e.Encode(r)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "dockerrun:", err)
		os.Exit(1)
	}
	if !*asJSON {
		r.print(os.Stdout)
	}
}
