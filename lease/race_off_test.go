// SPDX-License-Identifier: Apache-2.0

//go:build !race

package lease

// The size of TestYear.
const yearLeases, yearDays = 100, 365
