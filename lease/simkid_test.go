// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"net"
	"net/netip"
	"slices"
	"time"

	"mvdhcp/provision"
)

func (w *world) SetMode(ns provision.Namespace, c provision.Child, m provision.Mode) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	k, err := w.kid(ns, c)
	if err == nil {
		k.mode = m
	}
	return err
}

func (w *world) Apply(ns provision.Namespace, c provision.Child, cfg provision.Config) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	k, err := w.kid(ns, c)
	if err == nil {
		err = w.applyErr
	}
	if err != nil {
		return err
	}
	now := w.clock.Now()
	for _, s := range w.spaces {
		for _, o := range s.kids {
			if o != k && o.has(now).Addr() == cfg.Address.Addr() && o.has(now).IsValid() {
				w.fault("%v on %s while %s has it", cfg.Address, s.id.Path, o.space.id.Path)
			}
		}
	}
	w.applied++
	k.cfg, k.until = cfg, now+cfg.Lifetime
	if cfg.Lifetime == provision.Forever {
		k.until = never
	}
	told := w.srv.told[k.MAC.String()]
	if g := w.srv.grants[k.MAC.String()]; g != nil {
		told = append(slices.Clone(told), *g)
	}
	if !slices.ContainsFunc(told, func(g grant) bool {
		return g.addr == cfg.Address.Addr() && (g.until == never || k.until <= g.until+time.Second)
	}) {
		w.fault("%v put on %s until %v, the server granted %+v", cfg.Address, ns.Path, k.until, told)
	}
	return nil
}

// configure sets a child up as an engine does that made it.
func (w *world) configure(ns provision.Namespace, c provision.Child, addr netip.Prefix, router netip.Addr) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if k, err := w.kid(ns, c); err == nil {
		k.cfg.Address, k.until, k.router = addr, never, router
	}
}

func (w *world) Unconfigure(ns provision.Namespace, c provision.Child) error {
	time.Sleep(w.unconfigureFor)
	w.mu.Lock()
	defer w.mu.Unlock()
	k, err := w.kid(ns, c)
	if err == nil {
		k.cfg, k.until = provision.Config{}, 0
	}
	return err
}

func (w *world) Repair(ns provision.Namespace, c provision.Child, cfg provision.Config) (what []string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	k, err := w.kid(ns, c)
	if err != nil {
		return nil, err
	}
	if k.down {
		k.down = false
		what = append(what, "link up")
	}
	if now := w.clock.Now(); cfg.Address.IsValid() && k.has(now) != cfg.Address {
		k.cfg, k.until = cfg, now+cfg.Lifetime
		what = append(what, "address "+cfg.Address.String())
	}
	for _, rt := range cfg.Routes {
		if !slices.Contains(k.cfg.Routes, rt) {
			k.cfg.Routes = append(k.cfg.Routes, rt)
			what = append(what, "route to "+rt.Dst.String())
		}
	}
	w.repaired += len(what)
	return what, nil
}

func (w *world) FollowMTU(ns provision.Namespace, c provision.Child, was, most int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	k, err := w.kid(ns, c)
	if err == nil {
		k.followed = append(k.followed, [2]int{was, most})
	}
	return err
}

func (w *world) TakeDefault(ns provision.Namespace, c provision.Child, via, _ netip.Addr) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	k, err := w.kid(ns, c)
	return err == nil && k.router == via, err
}

func (w *world) HasAddress(ns provision.Namespace, c provision.Child, p netip.Prefix) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	k, err := w.kid(ns, c)
	return err == nil && k.has(w.clock.Now()) == p, err
}

func (w *world) HostHas(addr netip.Addr) (string, bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	name, ok := w.hostHas[addr]
	return name, ok, nil
}

func (w *world) Neighbour(ns provision.Namespace, c provision.Child, _ netip.Addr) (net.HardwareAddr, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, err := w.kid(ns, c)
	return w.srv.mac, err
}

func (w *world) ReadResolv(f provision.ResolvFile) ([]byte, bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s, ok := w.resolv[f]
	return []byte(s), ok, nil
}

func (w *world) WriteResolv(f provision.ResolvFile, content []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.resolv[f] = string(content)
	return nil
}

func (w *world) RestoreResolv(f provision.ResolvFile, content []byte, existed bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.resolv[f] = string(content); !existed {
		delete(w.resolv, f)
	}
	return nil
}
