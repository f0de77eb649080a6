// SPDX-License-Identifier: Apache-2.0

package docker

import "mvdhcp/lease"

// claim makes a held lease the one that a call goes on from, until unclaim. It
// fails when another call does, or the lease is not held any more: of calls that
// take the only held lease for their own, one gets it.
func (p *Plugin) claim(id string) bool {
	p.mu.Lock()
	taken := p.claimed[id]
	p.claimed[id] = true
	p.mu.Unlock()
	if taken {
		return false
	}
	for _, v := range p.Keeper.Leases(id, false) {
		if v.ID == id && v.State == lease.Kept && v.Pool.Held() {
			return true
		}
	}
	p.unclaim(id)
	return false
}

// unclaim ends a claim; "" is none.
func (p *Plugin) unclaim(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.claimed, id)
}
