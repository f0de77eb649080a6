// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"
)

func main() {
	os.Exit(run(untilSignal(context.Background()), os.Args, os.Stdout, os.Stderr))
}
