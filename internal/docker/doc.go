// SPDX-License-Identifier: Apache-2.0

// Package docker is what mvdhcp knows of the Docker engine: Engine looks
// containers up through the engine's API. Package daemon imports it.
package docker
