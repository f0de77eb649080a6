// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"
)

// progressDelay keeps a line that would be erased at once off the terminal.
const progressDelay = 150 * time.Millisecond

// progress is one line on a terminal that says what is waited for and how long
// already; anywhere else it is nothing. Its methods are safe for concurrent use.
type progress struct {
	w     io.Writer
	tty   *os.File // nil: no terminal
	name  string
	begun time.Time
	quit  chan struct{}
	done  chan struct{}

	mu    sync.Mutex
	what  string
	ready bool // the delay is over
	drawn bool
	ended bool
}

// startProgress needs an end.
func startProgress(w io.Writer, name string) *progress {
	p := &progress{w: w, name: clean(name), begun: time.Now()}
	if f := terminal(w); f != nil {
		p.tty, p.quit, p.done = f, make(chan struct{}), make(chan struct{})
		go p.run()
	}
	return p
}

// terminal returns w when it is one.
func terminal(w io.Writer) *os.File {
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return f
	}
	return nil
}

// say shows what is waited for from now on.
func (p *progress) say(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.what = clean(what)
	p.draw()
}

// note writes a line that stays.
func (p *progress) note(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.erase()
	fmt.Fprintln(p.w, clean(line))
	p.draw()
}

// end erases the line. It may be called more than once.
func (p *progress) end() {
	p.mu.Lock()
	was := p.ended
	p.ended = true
	p.erase()
	p.mu.Unlock()
	if p.tty != nil && !was {
		close(p.quit)
		<-p.done
	}
}

func (p *progress) run() {
	defer close(p.done)
	t := time.NewTimer(progressDelay)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-p.quit:
			return
		}
		p.mu.Lock()
		p.ready = true
		p.draw()
		p.mu.Unlock()
		t.Reset(time.Second - time.Since(p.begun)%time.Second)
	}
}

func (p *progress) draw() {
	if p.tty == nil || !p.ready || p.ended || p.what == "" {
		return
	}
	line := p.name + ": " + p.what
	if s := int(time.Since(p.begun) / time.Second); s > 0 {
		line += fmt.Sprintf(" (%d s)", s)
	}
	width, _, err := term.GetSize(int(p.tty.Fd()))
	if err != nil || width < 1 {
		width = 80
	}
	fmt.Fprintf(p.w, "\r\x1b[K%s", fitTo(line, width-1))
	p.drawn = true
}

func (p *progress) erase() {
	if p.drawn {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.drawn = false
	}
}

// fitTo cuts a line to the columns there are.
func fitTo(line string, width int) string {
	r := []rune(line)
	if len(r) <= width {
		return line
	}
	return string(r[:max(width, 0)])
}
