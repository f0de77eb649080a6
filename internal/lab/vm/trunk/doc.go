// SPDX-License-Identifier: Apache-2.0

// Package trunk tests what needs a kernel with 802.1Q: mvdhcp as a user has it
// on a host whose NIC is a trunk with VLANs 100 and 101, each with a DHCP server
// of its own behind a switch that filters VLANs.
//
// Its tests have the build tag "vm" and use fixed names of links and
// namespaces: they run only inside the virtual machines that the tests of
// mvdhcp/internal/lab/vm boot. Without the tag there is nothing here to run.
package trunk
