// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Systemd is a systemd of its own on a host: process 1 of a process namespace
// whose /run and /var/lib begin empty, and who writes to no /etc but its own. Namespaces
// of the lab are there under /run/netns.
type Systemd struct {
	Host *Host

	process *Process
	first   int // systemd's id outside
}

// systemdScript prepares the mounts; its argument is a directory for units. A
// unit that is set up with mounts of its own gets those that come later, as on a
// machine where / is shared.
const systemdScript = `set -e
mount --make-rslave /
mount --make-rshared /
mount -t proc proc /proc
mkdir -p "$1/netns" "$1/upper" "$1/work"
mount --rbind /run/netns "$1/netns"
umount -R -l /run/netns
umount -R -l /run || :
mount -t tmpfs tmpfs /run
mkdir -p /run/netns /run/lock /run/systemd/system
mount --rbind "$1/netns" /run/netns
umount -R -l "$1/netns"
mount -t tmpfs tmpfs /var/lib
mount -t overlay -o "lowerdir=/etc,upperdir=$1/upper,workdir=$1/work" overlay /etc
umount -R /sys/fs/cgroup || :
mount -t cgroup2 cgroup2 /sys/fs/cgroup
for unit in lab sysinit sockets basic shutdown; do
	printf '[Unit]\nDefaultDependencies=no\n' >/run/systemd/system/$unit.target
done
cp -r "$1"/units/. /run/systemd/system
mkdir /run/systemd/system/service.d
printf '[Service]\nStandardOutput=append:/run/said\nStandardError=append:/run/said\n' >/run/systemd/system/service.d/said.conf
: >/run/said
tail -f /run/said &
export container=lab SYSTEMD_UNIT_PATH=/run/systemd/system
exec /lib/systemd/systemd --system --unit=lab.target --log-target=console --show-status=no
`

// Systemd starts one on a host with these units (file name → text), and waits
// until it takes orders.
func (l *Lab) Systemd(h *Host, units map[string]string) *Systemd {
	l.tb.Helper()
	dir := filepath.Join(l.dir, l.unique("systemd"))
	l.must(os.MkdirAll(filepath.Join(dir, "units"), 0o755), "make the units' directory")
	for name, text := range units {
		l.must(os.WriteFile(filepath.Join(dir, "units", name), []byte(text), 0o644), "write %s", name)
	}
	l.Tool("systemctl")
	cmd := exec.Command("/bin/sh", "-c", systemdScript, "sh", dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS | syscall.CLONE_NEWCGROUP,
	}
	s := &Systemd{Host: h, process: h.StartCommand(cmd)}
	s.process.Name, s.first = "systemd of "+h.Name, s.process.PID
	l.Eventually(30*time.Second, s.process.Name+" takes orders", func() bool {
		if !s.process.Running() {
			l.tb.Fatalf("lab: %s ended:\n%s", s.process.Name, s.process.Output())
		}
		_, err := s.Try("systemctl", "is-active", "lab.target")
		return err == nil
	})
	return s
}

// Units are the files of packaging/ with the binary under test in them and a log
// that says all, by name. Each second text replaces the one before it.
func (l *Lab) Units(replace ...string) map[string]string {
	l.tb.Helper()
	root, err := ModuleRoot()
	l.must(err, "find packaging/")
	paths, err := filepath.Glob(filepath.Join(root, "packaging", "*.s*"))
	l.must(err, "read packaging/")
	r := strings.NewReplacer(append(replace, "/usr/local/bin/mvdhcp serve", l.Binary()+" serve --log-level debug")...)
	units := map[string]string{}
	for _, p := range paths {
		b, err := os.ReadFile(p)
		l.must(err, "read %s", p)
		units[filepath.Base(p)] = r.Replace(string(b))
	}
	return units
}

// Try runs a program among systemd's processes and files, on its host.
func (s *Systemd) Try(name string, args ...string) (string, error) {
	cmd := s.Command(name, args...)
	var out []byte
	err := s.Host.Do(func() (err error) {
		out, err = cmd.CombinedOutput()
		return err
	})
	return strings.TrimSpace(string(out)), err
}

// Run is Try that ends the test on an error.
func (s *Systemd) Run(name string, args ...string) string {
	l := s.Host.lab
	l.tb.Helper()
	out, err := s.Try(name, args...)
	if err != nil {
		l.tb.Fatalf("lab: %s %s: %v: %s\n%s", name, strings.Join(args, " "), err, out, s.said())
	}
	return out
}

// said is the end of what systemd and its services have printed.
func (s *Systemd) said() string {
	out := s.process.Output()
	return out[max(0, len(out)-8<<10):]
}

// Start runs a program there in the background.
func (s *Systemd) Start(name string, args ...string) *Process {
	s.Host.lab.tb.Helper()
	return s.Host.StartCommand(s.Command(name, args...))
}

// Command is a program that is going to run there, in the network namespace of
// whoever starts it.
func (s *Systemd) Command(name string, args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"-t", strconv.Itoa(s.first), "-m", "-p", "-i", "-u", "-C", "--", name}, args...)...)
}

// Property is what systemd says of a unit.
func (s *Systemd) Property(unit, name string) string {
	s.Host.lab.tb.Helper()
	return s.Run("systemctl", "show", "--value", "-p", name, unit)
}

// Path is where a file of its is found from outside.
func (s *Systemd) Path(path string) string { return fmt.Sprintf("/proc/%d/root%s", s.first, path) }
