// SPDX-License-Identifier: Apache-2.0

// Package docker is what mvdhcp knows of the Docker engine: Plugin is the IPAM
// plugin that the engine calls, and FindContainer looks containers up through
// the engine's API. No call of the engine's API happens while the engine waits
// for the plugin. Package daemon imports it.
package docker
