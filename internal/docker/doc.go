// SPDX-License-Identifier: Apache-2.0

// Package docker is what mvdhcp knows of the Docker engine: Plugin is the IPAM
// plugin and the network driver that the engine calls, and FindContainer looks
// containers up through the engine's API. While the engine waits for the plugin,
// nothing depends on an answer of its API: the driver asks which container
// starts, for a second at most, and goes on without. Package daemon imports it.
package docker
