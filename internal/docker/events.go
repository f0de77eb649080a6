// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// message is an event of the engine.
type message struct {
	Type   string
	Action string
	Actor  struct{ ID string }
}

// What events are of, and what happened.
const (
	ofContainer = "container"
	ofNetwork   = "network"
	died        = "die"
)

// watched are the events that can change where a lease belongs: of containers
// and of networks.
var watched = filters{}.
	add("type", ofContainer, ofNetwork).
	add("event", "start", died, "destroy", "rename", "connect", "disconnect")

// watch calls f with the engine's events until the stream or ctx ends. ready is
// called once the engine sends them: nothing that happens from then on is missed.
func (e *engineClient) watch(ctx context.Context, ready func(), f func(message)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	late := time.AfterFunc(e.timeout, cancel)
	body, err := e.get(ctx, "/events", filtered(watched))
	if !late.Stop() {
		if err == nil {
			body.Close()
		}
		err = fmt.Errorf("no answer within %v", e.timeout)
	}
	if err != nil {
		return fmt.Errorf("failed to follow the engine's events: %w", err)
	}
	defer body.Close()
	ready()
	s := lines(body)
	for s.Scan() {
		var m message
		if err := json.Unmarshal(s.Bytes(), &m); err != nil {
			return fmt.Errorf("an event of the engine can't be read: %w", err)
		}
		f(m)
	}
	if err := s.Err(); err != nil {
		return fmt.Errorf("the engine's events ended: %w", err)
	}
	return fmt.Errorf("the engine's events ended: %w", io.EOF)
}
