// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"fmt"

	"mvdhcp/provision"
)

// applyDNS writes the binding's name servers and domains to the target's
// resolv.conf, after saving what stood there.
func (k *Keeper) applyDNS(e *entry) error {
	r := k.record(e)
	if !r.Spec.DNS || r.Resolv == nil {
		return nil
	}
	if !r.Resolv.Saved {
		saved, err := k.original(r)
		if err != nil {
			return fmt.Errorf("%s: failed to read its resolv.conf: %w", r.Target.Name, err)
		}
		r = k.update(e, func(r *Record) { r.Resolv = saved })
		k.save(e)
	}
	return k.writeDNS(r)
}

// restoreDNS puts a resolv.conf back, or leaves it to another lease that writes
// to it too.
func (k *Keeper) restoreDNS(r Record) {
	if r.Resolv == nil || !r.Resolv.Saved {
		return
	}
	var err error
	if other := k.sharer(r); other != nil {
		err = k.writeDNS(*other)
	} else {
		err = k.host.RestoreResolv(r.Resolv.File, r.Resolv.Content, r.Resolv.Existed)
	}
	if err != nil {
		k.log.Warn("resolv.conf not put back", "lease", r.ID, "target", r.Target.Name, "error", err)
	}
}

// original is the file as it was before any lease wrote to it.
func (k *Keeper) original(r Record) (*SavedResolv, error) {
	if other := k.sharer(r); other != nil {
		s := *other.Resolv
		return &s, nil
	}
	content, existed, err := k.host.ReadResolv(r.Resolv.File)
	return &SavedResolv{File: r.Resolv.File, Content: content, Existed: existed, Saved: true}, err
}

func (k *Keeper) writeDNS(r Record) error {
	b := r.Binding
	if b == nil || len(b.DNS) == 0 && b.Domain == "" && len(b.Search) == 0 {
		return nil
	}
	if err := k.host.WriteResolv(r.Resolv.File, provision.RenderResolv(b.DNS, b.Domain, b.Search, r.Resolv.Content)); err != nil {
		return fmt.Errorf("%s: failed to write its resolv.conf: %w", r.Target.Name, err)
	}
	return nil
}

// sharer returns another lease that writes to the same file.
func (k *Keeper) sharer(r Record) *Record {
	k.mu.Lock()
	defer k.mu.Unlock()
	for id, e := range k.leases {
		if o := e.rec; id != r.ID && o.Resolv != nil && o.Resolv.Saved && o.Resolv.File == r.Resolv.File && o.State != Releasing {
			return &o
		}
	}
	return nil
}
