// SPDX-License-Identifier: Apache-2.0

//go:build vm

package trunk

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// What a life of the machine leaves to the next on its disk.
const (
	rebootDir  = "/disk"
	rebootFile = "/disk/before.json"
)

// TestReboot is one life of a machine whose disk holds the keeper's state and the
// servers' lease files. It checks what became of the leases of the life before,
// attaches, renews, and goes on attaching until the power fails in the middle of a
// write to the keeper's store, which is the end of the machine. With REBOOT=last it
// ends after the checks.
func TestReboot(t *testing.T) {
	l := newLANIn(t, rebootDir)
	wire := capture(t, "server100")
	k := newKeeperIn(t, filepath.Join(rebootDir, "keeper"), "--boot-grace", "5s")
	before := map[string]lease{}
	switch data, err := os.ReadFile(rebootFile); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		t.Fatal(err)
	default:
		if err := json.Unmarshal(data, &before); err != nil {
			t.Fatal(err)
		}
		cameBack(l, k, wire, before)
	}
	if os.Getenv("REBOOT") == "last" {
		if len(before) == 0 {
			t.Fatal("there was no life before this one")
		}
		return
	}

	// a, b and c run; c is the one that won't come back.
	now := map[string]lease{}
	for _, ns := range []string{"a", "b", "c"} {
		if before[ns].MAC == "" || ns == "c" {
			l.namespace(ns)
			k.attach(ns, "ens192.100")
		}
		if a := k.do("renew", ns); a.status != 0 {
			t.Fatalf("renew %s: status %d: %s", ns, a.status, a.stderr)
		}
	}
	for _, got := range k.leases() {
		if got.Renewed == 0 {
			t.Errorf("%s is not renewed: %+v", got.Target, got)
		}
		now[got.Target[len("netns:"):]] = got
	}
	if t.Failed() || len(now) != 3 {
		t.Fatalf("the leases are %+v, want those of a, b and c", now)
	}
	remember(t, now)

	// The power fails in the middle of this.
	const busy = 6
	for n := range busy {
		l.namespace(fmt.Sprintf("d%d", n))
	}
	for _, half := range [][2]int{{0, busy / 2}, {busy / 2, busy}} {
		go func() {
			for {
				for n := half[0]; n < half[1]; n++ {
					k.do("attach", fmt.Sprintf("netns:d%d", n), "--parent", "ens192.100")
				}
				for n := half[0]; n < half[1]; n++ {
					k.do("detach", fmt.Sprintf("netns:d%d", n))
				}
			}
		}()
	}
	powerCut(t, filepath.Join(k.dir, "state"))
}

// powerCut ends the machine as soon as files of a directory have been written to
// as often as POWERCUT says, with whatever was under way.
func powerCut(t *testing.T, dir string) {
	t.Helper()
	writes, err := strconv.Atoi(os.Getenv("POWERCUT"))
	if err != nil || writes < 1 {
		t.Fatalf("POWERCUT is %q, want a number of writes", os.Getenv("POWERCUT"))
	}
	cut, err := os.OpenFile("/proc/sysrq-trigger", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	watch, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unix.InotifyAddWatch(watch, dir, unix.IN_MODIFY); err != nil {
		t.Fatal(err)
	}
	fmt.Printf("the power fails at write %d to %s\n", writes, dir)
	buf := make([]byte, 4096)
	for writes > 0 {
		n, err := unix.Read(watch, buf)
		if err != nil && err != unix.EINTR {
			t.Fatal(err)
		}
		for b := buf[:max(n, 0)]; len(b) >= unix.SizeofInotifyEvent; writes-- {
			b = b[unix.SizeofInotifyEvent+binary.NativeEndian.Uint32(b[12:]):] // behind its name
		}
	}
	if _, err := cut.WriteString("b"); err != nil {
		t.Fatal(err)
	}
	select {}
}

// remember writes the leases to the disk, for the next life.
func remember(t *testing.T, leases map[string]lease) {
	t.Helper()
	data, err := json.Marshal(leases)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(rebootFile)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// cameBack sets the namespaces a and b up anew and checks that each has its MAC
// and its address again without having asked for another, and that everything
// else of the life before was given back.
func cameBack(l *lan, k *keeper, wire *frames, before map[string]lease) {
	t := l.t
	t.Helper()
	back := []string{"a", "b"}
	for _, ns := range back {
		l.namespace(ns)
	}
	k.await("a and b are bound, and nothing else is left", func(all []lease) bool {
		return len(all) == len(back) && !slices.ContainsFunc(all, func(l lease) bool { return l.State != "bound" })
	})
	var want []string
	for _, got := range k.leases() {
		ns := got.Target[len("netns:"):]
		if was := before[ns]; got.MAC != was.MAC || got.Address != was.Address {
			t.Errorf("%s has %s with MAC %s, had %s with %s", ns, got.Address, got.MAC, was.Address, was.MAC)
		}
		l.granted(ns, 100, got)
		wire.verified(got.MAC, got.Address)
		want = append(want, got.MAC)
	}
	slices.Sort(want)
	s := l.servers[100]
	s.await(fmt.Sprintf("leases for exactly %v", want), func() bool { return slices.Equal(s.macs(), want) })
	if s := l.servers[101]; s.count() != 0 {
		t.Errorf("the server of VLAN 101 holds leases of %v", s.macs())
	}
}
