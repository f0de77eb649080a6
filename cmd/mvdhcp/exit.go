// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"mvdhcp/internal/api"
)

// exitStatus are the statuses of the codes; what has no code is a failure.
var exitStatus = map[api.Code]int{
	api.CodeFailed:   1,
	api.CodeUsage:    2,
	api.CodeNoAnswer: 3,
	api.CodeConflict: 4,
	api.CodeDown:     5,
}

// interrupted is the cause of a context that a signal ended.
type interrupted struct{ sig unix.Signal }

func (e interrupted) Error() string { return "interrupted (" + e.sig.String() + ")" }

// untilSignal returns a context that SIGINT or SIGTERM ends. A second signal
// does what it does by default: it kills.
func untilSignal(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancelCause(ctx)
	c := make(chan os.Signal, 1)
	signal.Notify(c, unix.SIGINT, unix.SIGTERM)
	go func() {
		s := <-c
		signal.Stop(c)
		cancel(interrupted{s.(unix.Signal)})
	}()
	return ctx
}

// report prints err in one line and returns the exit status for it: 128 and the
// signal's number when a signal ended the work, as shells have it.
func report(ctx context.Context, stderr io.Writer, err error) int {
	if err == nil {
		return 0
	}
	fmt.Fprintf(stderr, "mvdhcp: %s\n", clean(err.Error()))
	var sig interrupted
	if errors.As(context.Cause(ctx), &sig) {
		return 128 + int(sig.sig)
	}
	var coded *api.Error
	if errors.As(err, &coded) {
		if status, ok := exitStatus[coded.Code]; ok {
			return status
		}
	}
	var unknownTopic cli.ExitCoder
	if errors.As(err, &unknownTopic) {
		return exitStatus[api.CodeUsage]
	}
	return exitStatus[api.CodeFailed]
}

func usage(format string, args ...any) error {
	return &api.Error{Code: api.CodeUsage, Message: fmt.Sprintf(format, args...)}
}

// needRoot is for commands that do the keeper's work or start it.
func needRoot(what string) error {
	if os.Geteuid() == 0 {
		return nil
	}
	return fmt.Errorf("not root: %s needs to be: run it with sudo", what)
}

// clean makes one line of s that a terminal shows as it is: servers and
// containers choose some of what is printed.
func clean(s string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			return ' '
		case !isShown(r):
			return '?'
		}
		return r
	}, s))
}
