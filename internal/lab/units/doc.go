// SPDX-License-Identifier: Apache-2.0

// Package units holds the tests of packaging/: what systemd-analyze says of the
// units, and a systemd of the lab that runs a keeper by them. Nothing imports it.
package units
