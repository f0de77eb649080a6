// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"mvdhcp/dhcpclient"
	"mvdhcp/provision"
)

// AttachOptions is what Attach works from.
type AttachOptions struct {
	// Spec has every default but those of Ifname (empty: the first free ethN),
	// MAC (nil: derived) and ClientID, which is made from the text below.
	Spec     Spec
	ClientID string // see ParseClientID
	Target   Target
	NS       provision.Namespace
	Resolv   *provision.ResolvFile // where DNS goes, when Spec.DNS is set
	// Timeout is for the whole attach.
	Timeout time.Duration
}

// ErrAttached is wrapped by errors about an identity, interface or MAC that
// another lease has.
var ErrAttached = errors.New("attached already")

// Attach makes a child in the namespace, gets it a lease and configures it. It
// tells progress in a few words what it waits for. When it fails, or ctx ends
// first, everything it did is undone before it returns.
func (k *Keeper) Attach(ctx context.Context, o AttachOptions, progress func(string)) (Record, error) {
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	// The namespace stays open for as long as the attach takes.
	host, leave, err := k.host.Enter(o.NS)
	if err != nil {
		return Record{}, fmt.Errorf("%s: %w", o.Target.Name, err)
	}
	defer leave()
	e, prev, jctx, release, err := k.reserve(ctx, host, o)
	if err != nil {
		return Record{}, err
	}
	defer release()
	if err := k.bringUp(jctx, e, progress); err != nil {
		calledOff := ctx.Err() == nil && k.ctx.Err() == nil && jctx.Err() != nil
		progress("undoing")
		k.undo(e, prev)
		switch r := k.record(e); {
		case calledOff && !k.host.Alive(r.Target, r.NS):
			err = fmt.Errorf("%s went away before it had an address on %s", r.Target.Name, r.Spec.Parent)
		case calledOff:
			err = fmt.Errorf("%s on %s: the attach was called off by a detach or release of it meanwhile, and undone", r.Target.Name, r.Spec.Parent)
		case errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV):
			err = fmt.Errorf("%s on %s: %s went away before it had an address: attach it again: %w", r.Target.Name, r.Spec.Parent, r.Spec.Ifname, err)
		}
		return Record{}, err
	}
	r := k.record(e)
	k.supersede(ctx, r)
	return r, nil
}

// reserve enters the intent of an attach into the keeper's memory, owned by the
// caller, who has entered the namespace with host. prev is the kept record it goes
// on from, if any.
func (k *Keeper) reserve(ctx context.Context, host Host, o AttachOptions) (e *entry, prev *Record, jctx context.Context, release func(), err error) {
	for {
		ifname := o.Spec.Ifname
		if ifname == "" {
			if ifname, err = k.freeName(host, o); err != nil {
				return nil, nil, nil, nil, err
			}
		}
		spec := o.Spec
		spec.Ifname = ifname
		if spec.MAC == nil {
			spec.MAC = DeriveMAC(k.machineID, spec.Parent, spec.Identity, ifname)
		}
		if spec.ClientID, err = ParseClientID(o.ClientID, spec.MAC, k.machineID, spec.Identity, ifname); err != nil {
			return nil, nil, nil, nil, err
		}
		k.mu.Lock()
		if k.closed {
			k.mu.Unlock()
			return nil, nil, nil, nil, errors.New("the keeper is stopping")
		}
		other, err := k.clash(o, spec)
		if other == nil && err == nil {
			rec := Record{
				ID: newID(), Spec: spec, Target: o.Target, NS: o.NS, State: Init, Created: k.clock.Wall(),
				Child: provision.Child{Name: ifname, MAC: spec.MAC, NSID: -1},
			}
			if o.Resolv != nil {
				rec.Resolv = &SavedResolv{File: *o.Resolv}
			}
			e = &entry{pos: -1}
			if kept := k.kept(spec); kept != nil {
				p := kept.rec
				prev, e = &p, kept
				rec.ID, rec.Created, rec.Binding, rec.BoundAt, rec.Renewals, rec.MadeParent, rec.Former = p.ID, p.Created, p.Binding, p.BoundAt, p.Renewals, p.MadeParent, prev
			}
			e.rec, e.tries, e.missing = rec, 0, false
			k.enter(e)
			jctx, rel := k.take(ctx, e)
			e.op.host = host
			k.wg.Add(1)
			k.mu.Unlock()
			stop := context.AfterFunc(k.ctx, func() { e.interrupt(k) })
			return e, prev, jctx, func() { stop(); rel(); k.wg.Done() }, nil
		}
		k.mu.Unlock()
		if errors.Is(err, errNameRace) && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return nil, nil, nil, nil, err
		}
		if err := k.settle(ctx, other); err != nil {
			return nil, nil, nil, nil, err
		}
	}
}

// clash looks for what stands in the way of spec. An entry that it returns
// without an error is on its way out and must be settled first. The lock is held.
func (k *Keeper) clash(o AttachOptions, spec Spec) (*entry, error) {
	for _, e := range k.leases {
		r := &e.rec
		same := r.Spec.Identity == spec.Identity
		sameNS := r.NS.Dev == o.NS.Dev && r.NS.Ino == o.NS.Ino
		switch {
		case r.State == Kept:
			if bytes.Equal(r.Spec.MAC, spec.MAC) && !(same && r.Spec.Parent == spec.Parent && r.Spec.Ifname == spec.Ifname) {
				return nil, fmt.Errorf("%w: MAC %v is kept for %s: release that first, or give another --mac", ErrAttached, spec.MAC, r.Spec.Identity)
			}
			if same && e.op != nil {
				return e, nil
			}
			continue
		case same || (sameNS && r.Spec.Ifname == spec.Ifname) || bytes.Equal(r.Spec.MAC, spec.MAC):
			if r.State == Releasing || !k.host.Alive(r.Target, r.NS) || k.childless(e) {
				return e, nil
			}
		default:
			continue
		}
		switch {
		case same && !sameNS:
			return nil, fmt.Errorf("%w: identity %s is attached to %s as %s: detach it first, or give --identity another name", ErrAttached, spec.Identity, r.Target.Name, r.Spec.Ifname)
		case same && o.Spec.Ifname == "" && r.Spec.Parent == spec.Parent:
			return nil, fmt.Errorf("%w: %s is attached to %s as %s: detach it first, or give --ifname for a second one", ErrAttached, spec.Identity, r.Spec.Parent, r.Spec.Ifname)
		case sameNS && r.Spec.Ifname == spec.Ifname && o.Spec.Ifname == "":
			return e, errNameRace
		case sameNS && r.Spec.Ifname == spec.Ifname:
			return nil, fmt.Errorf("%w: interface %s of %s is taken by the lease of %s: give another --ifname", ErrAttached, spec.Ifname, r.Target.Name, r.Spec.Identity)
		case bytes.Equal(r.Spec.MAC, spec.MAC):
			return nil, fmt.Errorf("%w: MAC %v is in use by %s: give another --mac", ErrAttached, spec.MAC, r.Spec.Identity)
		}
	}
	return nil, nil
}

// childless reports whether an entry's child is gone from its namespace though
// its parent is there: it was deleted, or another namespace has the inode of the
// one that it was in. The lock is held.
func (k *Keeper) childless(e *entry) bool {
	r := &e.rec
	if !r.Established || e.missing || r.Pool != nil || r.BootID != k.clock.BootID() {
		return false
	}
	if p, err := k.host.Parent(r.link()); err != nil || p.Index != r.ParentIndex {
		return false
	}
	_, err := k.host.FindChild(r.NS, r.Child)
	return errors.Is(err, provision.ErrGone)
}

// errNameRace: another attach took the interface name in the same moment.
var errNameRace = errors.New("the interface name was taken in the same moment: try again")

// kept returns the free kept entry that an attach goes on from: of the spec's
// identity, with its MAC, or a pool's. The lock is held.
func (k *Keeper) kept(spec Spec) *entry {
	for _, e := range k.leases {
		if r := &e.rec; r.State == Kept && e.op == nil && r.Spec.sameChild(&spec) && (r.Pool != nil || bytes.Equal(r.Spec.MAC, spec.MAC)) {
			return e
		}
	}
	return nil
}

// sameChild reports whether two specs are of one child, whatever its MAC is.
func (s *Spec) sameChild(o *Spec) bool {
	return s.Identity == o.Identity && s.Parent == o.Parent && s.Ifname == o.Ifname
}

// keptFor reports whether the record is kept for the next attach of the child.
func (r *Record) keptFor(s *Spec) bool {
	return r.State == Kept && r.Pool == nil && r.Spec.sameChild(s)
}

// supersede gives back what is kept for the child of a lease that was attached
// with another MAC. A server that goes by the client identifier may have granted
// the same address again: that one has it now, and nothing is given back.
func (k *Keeper) supersede(ctx context.Context, now Record) {
	var old []*entry
	k.mu.Lock()
	for _, e := range k.leases {
		if r := &e.rec; r.keptFor(&now.Spec) {
			old = append(old, e)
		}
	}
	k.mu.Unlock()
	for _, e := range old {
		_, release, err := k.own(ctx, e, true)
		if err != nil {
			continue // it has ended, or ends when it expires
		}
		if r := k.record(e); r.keptFor(&now.Spec) {
			k.teardown(e, fmt.Sprintf("its identity was attached with MAC %v", now.Spec.MAC), !r.sameAddress(now.Binding))
		}
		release()
	}
}

// settle brings an entry whose target is gone to its end: a lease that is being
// released is waited for, another is kept for the attach that waits.
func (k *Keeper) settle(ctx context.Context, e *entry) error {
	r := k.record(e)
	preempt := r.State.HasAddress()
	_, release, err := k.own(ctx, e, preempt)
	if err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("waiting for the former lease of %s to end: %w", r.Spec.Identity, ctx.Err())
		}
		return nil // it has ended
	}
	defer release()
	switch r = k.record(e); {
	case r.State == Kept:
		return nil
	case r.followed() && r.State != Releasing:
		k.wait(e)
		return nil
	case r.State.HasAddress():
		k.keep(e)
		return nil
	case r.State != Releasing:
		r.EndReason = "its target is gone"
	}
	if r = k.teardown(e, r.EndReason, true); r.State != Releasing {
		return nil
	}
	select { // its RELEASE can't be sent now
	case <-ctx.Done():
		return fmt.Errorf("waiting for the former lease of %s to be released (%s): %w", r.Spec.Identity, r.LastError, ctx.Err())
	case <-time.After(time.Second):
		return nil
	}
}

// freeName chooses an interface name: that of the identity's kept lease, else
// the first ethN that neither the namespace nor another attach has.
func (k *Keeper) freeName(host Host, o AttachOptions) (string, error) {
	taken := map[string]bool{}
	var keptName string
	k.mu.Lock()
	for _, e := range k.leases {
		r := &e.rec
		switch {
		case r.State == Kept:
			if r.Spec.Identity == o.Spec.Identity && r.Spec.Parent == o.Spec.Parent {
				keptName = r.Spec.Ifname
			}
		case r.NS.Dev == o.NS.Dev && r.NS.Ino == o.NS.Ino:
			taken[r.Spec.Ifname] = true
		}
	}
	k.mu.Unlock()
	name, err := host.FreeName(o.NS, func(s string) bool { return taken[s] })
	if err != nil {
		return "", fmt.Errorf("failed to find a free interface name in %s: %w", o.Target.Name, err)
	}
	if keptName != "" && !taken[keptName] {
		return keptName, nil
	}
	return name, nil
}

// undo takes back what a failed attach did. The caller owns the entry.
func (k *Keeper) undo(e *entry, prev *Record) {
	r := k.record(e)
	got, back := r, prev != nil && prev.sameAddress(r.Binding)
	switch {
	case back && prev.sameAddress(r.Offered):
		r.Binding = nil
	case back || r.Binding == nil:
		r.Binding = r.Offered
	}
	k.dismantle(r, r.Binding != nil)
	if back {
		k.update(e, func(r *Record) {
			*r = *prev
			r.Binding, r.BoundAt = got.Binding, got.BoundAt // which the server may have extended
		})
		k.save(e)
		e.due = k.keptDue(e)
		return
	}
	k.forget(e)
}

// sameAddress reports whether a binding, nil for none, has the record's address.
func (r *Record) sameAddress(b *dhcpclient.Binding) bool {
	if r.Binding == nil || b == nil {
		return r.Binding == b
	}
	return r.Binding.Address.Addr() == b.Address.Addr()
}

// request is what a lease's client says of itself.
func (r *Record) request() dhcpclient.Params {
	p := dhcpclient.Params{
		MAC: r.Spec.MAC, ClientID: r.Spec.ClientID, Hostname: r.Spec.Hostname,
		VendorClass: r.Spec.VendorClass, UserClass: r.Spec.UserClass,
		RequestIP: r.Spec.RequestIP, RequireIP: r.Spec.RequestIP.IsValid(),
		AllowServers: r.Spec.Allow, DenyServers: r.Spec.Deny,
	}
	if b := r.Binding; b != nil {
		p.PreferServer = b.Server
		if !p.RequestIP.IsValid() {
			p.RequestIP = b.Address.Addr()
		}
	}
	return p
}
