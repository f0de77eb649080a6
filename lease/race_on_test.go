// SPDX-License-Identifier: Apache-2.0

//go:build race

package lease

// The size of TestYear: less where every access is watched.
const yearLeases, yearDays = 20, 90
