// SPDX-License-Identifier: Apache-2.0

// Package checks has only tests: they read the module's source and fail where
// it breaks the rules of its layout. They need neither root nor a network.
package checks
