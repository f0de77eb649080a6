// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"reflect"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"mvdhcp/internal/api"
)

const (
	// settle is how long changes gather before the list is read again.
	settle = 100 * time.Millisecond
	// refresh reads it again though nothing was heard.
	refresh = 10 * time.Second
)

// watcher is one leases --watch.
type watcher struct {
	c     *cli.Context
	q     string
	tty   *os.File // nil: print changes
	table table
	ls    []api.Lease
	note  string // why the list may be out of date
}

// watch shows ls and what becomes of them until the context ends, which is no
// error. It outlives the keeper: it says so and tries on.
func watch(c *cli.Context, q string, ls []api.Lease) error {
	w := &watcher{c: c, q: q}
	if !c.Bool("json") {
		w.tty = terminal(c.App.Writer)
	}
	if w.tty != nil {
		fmt.Fprint(c.App.Writer, "\x1b[?1049h\x1b[?25l") // the other screen, no cursor
		defer fmt.Fprint(c.App.Writer, "\x1b[?25h\x1b[?1049l")
	}
	if err := w.begin(ls); err != nil {
		return err
	}
	heard := make(chan error, 1)
	listening := w.listen(heard)
	defer func() { listening.cancel(); <-listening.done }()
	clock := time.NewTicker(time.Second)
	defer clock.Stop()
	read := time.NewTimer(0) // what happened since ls was read
	defer read.Stop()
	soon := true // read is set to less than refresh
	for {
		var err error
		select {
		case <-c.Context.Done():
			return nil
		case lost := <-heard:
			if lost != nil {
				w.lost(lost)
				<-listening.done
				listening = silence
				soon = true
				read.Reset(time.Second)
			} else if !soon {
				soon = true
				read.Reset(settle)
			}
		case <-read.C:
			soon = false
			if listening == silence {
				listening = w.listen(heard)
			}
			read.Reset(refresh)
			err = w.update()
		case <-clock.C:
			err = w.redraw()
		}
		if err != nil {
			return err
		}
	}
}

// listener is the goroutine that reads events.
type listener struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// silence stands for no listener.
var silence = func() *listener {
	done := make(chan struct{})
	close(done)
	return &listener{func() {}, done}
}()

// listen delivers nil when something happened and an error when the stream of
// events broke off.
func (w *watcher) listen(heard chan error) *listener {
	ctx, cancel := context.WithCancel(w.c.Context)
	l := &listener{cancel, make(chan struct{})}
	poke := func() error {
		select {
		case heard <- nil:
		default:
		}
		return nil
	}
	go func() {
		defer close(l.done)
		err := client(w.c).Events(ctx, poke, func(api.Event) error { return poke() })
		if err != nil {
			select {
			case heard <- err:
			case <-ctx.Done():
			}
		}
	}()
	return l
}

func (w *watcher) lost(err error) {
	if w.note == "" && w.tty == nil {
		fmt.Fprintf(w.c.App.ErrWriter, "mvdhcp: %s; trying on\n", clean(err.Error()))
	}
	w.note = clean(err.Error())
}

// begin shows the first list.
func (w *watcher) begin(ls []api.Lease) error {
	now := time.Now()
	w.table.fit(leaseHeader)
	for _, l := range ls {
		w.table.fit(leaseRow(l, now))
	}
	if w.tty == nil && !w.c.Bool("json") {
		if _, err := fmt.Fprintln(w.c.App.Writer, w.table.line(leaseHeader)); err != nil {
			return err
		}
	}
	return w.show(ls)
}

// update reads the list again and shows what is new.
func (w *watcher) update() error {
	ls, err := listLeases(w.c, w.q)
	switch {
	case w.c.Context.Err() != nil:
		return nil
	case err != nil:
		w.lost(err)
		return w.redraw()
	}
	w.note = ""
	return w.show(ls)
}

func (w *watcher) show(ls []api.Lease) error {
	old := w.ls
	w.ls = ls
	if w.tty != nil {
		return w.redraw()
	}
	for _, l := range changes(old, ls) {
		if err := w.print(l); err != nil {
			return err
		}
	}
	return nil
}

func (w *watcher) print(l api.Lease) error {
	if w.c.Bool("json") {
		return printJSONLine(w.c.App.Writer, l)
	}
	row := leaseRow(l, time.Now())
	w.table.fit(row)
	_, err := fmt.Fprintln(w.c.App.Writer, w.table.line(row))
	return err
}

// changes returns the leases that are new or not as they were, and those that
// are gone, as ended ones.
func changes(old, ls []api.Lease) []api.Lease {
	was := make(map[string]api.Lease, len(old))
	for _, l := range old {
		was[l.ID] = l
	}
	var out []api.Lease
	for _, l := range ls {
		if before, ok := was[l.ID]; !ok || !sameLease(before, l) {
			out = append(out, l)
		}
		delete(was, l.ID)
	}
	for _, l := range old {
		if _, gone := was[l.ID]; gone {
			l.State, l.EndedAt = "ended", time.Now()
			out = append(out, l)
		}
	}
	return out
}

// sameLease compares all but the last second of the times: the keeper has them by
// another clock, and each answer has them a little different.
func sameLease(a, b api.Lease) bool {
	for _, t := range [][2]*api.Time{{&a.BoundAt, &b.BoundAt}, {&a.RenewAt, &b.RenewAt}, {&a.RebindAt, &b.RebindAt}, {&a.ExpiresAt, &b.ExpiresAt}} {
		if t[0].IsZero() == t[1].IsZero() && t[0].Sub(t[1].Time).Abs() < time.Second {
			*t[0] = *t[1]
		}
	}
	return reflect.DeepEqual(a, b)
}

// redraw fills the terminal, no line longer and no more lines than it has.
func (w *watcher) redraw() error {
	if w.tty == nil {
		return nil
	}
	width, height, err := term.GetSize(int(w.tty.Fd()))
	if err != nil || width < 1 || height < 1 {
		width, height = 80, 24
	}
	now := time.Now()
	w.table = table{} // as narrow as what is shown
	rows := [][]string{leaseHeader}
	for _, l := range w.ls {
		rows = append(rows, leaseRow(l, now))
	}
	for _, r := range rows {
		w.table.fit(r)
	}
	head := fmt.Sprintf("%s at %s", plural(len(w.ls), "lease"), now.Format(time.TimeOnly))
	if w.note != "" {
		head += ", then: " + w.note
	}
	lines := []string{head}
	for i, r := range rows {
		if len(lines) == height {
			break
		}
		if len(lines) == height-1 && i < len(rows)-1 {
			lines = append(lines, fmt.Sprintf("and %d more", min(len(rows)-i, len(w.ls))))
			break
		}
		lines = append(lines, w.table.line(r))
	}
	for i, l := range lines {
		lines[i] = fitTo(l, width-1) + "\x1b[K" // in the last column it would erase that
	}
	_, err = fmt.Fprint(w.c.App.Writer, "\x1b[H"+strings.Join(lines, "\n")+"\x1b[J")
	return err
}
