// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Clock is the keeper's time. Deadlines use Now, which counts suspend; Wall is
// for what is stored across boots and shown.
type Clock interface {
	Now() time.Duration // since boot, CLOCK_BOOTTIME
	Wall() time.Time
	BootID() string
	NewAlarm() (Alarm, error)
}

// Alarm wakes one waiter at one moment of its Clock.
type Alarm interface {
	// Set moves the moment; one that has passed rings at once.
	Set(at time.Duration) error
	// C delivers once for each moment that came, and may deliver too often.
	C() <-chan struct{}
	Close() error
}

// SystemClock is the kernel's CLOCK_BOOTTIME (clock_gettime(2)).
type SystemClock struct{ bootID string }

// NewSystemClock reads the boot id.
func NewSystemClock() (*SystemClock, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, fmt.Errorf("failed to read the boot id: %w", err)
	}
	return &SystemClock{bootID: strings.TrimSpace(string(b))}, nil
}

// Now is the time since boot, suspend included.
func (*SystemClock) Now() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("clock_gettime(CLOCK_BOOTTIME): " + err.Error()) // in every kernel since 2.6.39
	}
	return time.Duration(ts.Nano())
}

// Wall is the wall clock.
func (*SystemClock) Wall() time.Time { return time.Now() }

// BootID is random(4)'s boot_id.
func (c *SystemClock) BootID() string { return c.bootID }

// NewAlarm makes a timerfd, which rings right after a resume when its moment
// passed in suspend (timerfd_create(2)). It costs one descriptor and one
// goroutine until it is closed.
func (*SystemClock) NewAlarm() (Alarm, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("failed to make a timer: %w", err)
	}
	a := &timerfd{f: os.NewFile(uintptr(fd), "timerfd"), c: make(chan struct{}, 1), done: make(chan struct{})}
	go a.read()
	return a, nil
}

type timerfd struct {
	f    *os.File
	c    chan struct{}
	done chan struct{}
}

func (a *timerfd) C() <-chan struct{} { return a.c }

func (a *timerfd) Set(at time.Duration) error {
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(max(int64(at), 1))}
	conn, err := a.f.SyscallConn()
	if err != nil {
		return fmt.Errorf("failed to set the timer: %w", err)
	}
	var serr error
	err = conn.Control(func(fd uintptr) {
		serr = unix.TimerfdSettime(int(fd), unix.TFD_TIMER_ABSTIME, &spec, nil)
	})
	if err = errors.Join(err, serr); err != nil {
		return fmt.Errorf("failed to set the timer: %w", err)
	}
	return nil
}

// Close ends the alarm and its goroutine.
func (a *timerfd) Close() error {
	err := a.f.Close()
	<-a.done
	return err
}

func (a *timerfd) read() {
	defer close(a.done)
	var b [8]byte
	for {
		if _, err := a.f.Read(b[:]); err != nil {
			return
		}
		if binary.NativeEndian.Uint64(b[:]) == 0 {
			continue
		}
		select {
		case a.c <- struct{}{}:
		default:
		}
	}
}
