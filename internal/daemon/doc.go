// SPDX-License-Identifier: Apache-2.0

// Package daemon wires a keeper: store, kernel, watcher, API. The work enters
// at Run. cmd/mvdhcp imports it; it imports everything else but internal/lab.
package daemon
