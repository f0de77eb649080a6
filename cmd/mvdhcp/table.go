// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// table aligns cells in columns that only grow. The zero value works.
type table struct{ widths []int }

// fit makes room for a row.
func (t *table) fit(row []string) {
	for i, cell := range row {
		if i == len(t.widths) {
			t.widths = append(t.widths, 0)
		}
		t.widths[i] = max(t.widths[i], utf8.RuneCountInString(cell))
	}
}

// line writes a row that was fitted. An empty cell is a dash, so that the n-th
// word of a line is always the n-th column.
func (t *table) line(row []string) string {
	var b strings.Builder
	for i, cell := range row {
		cell = cmp.Or(cell, "-")
		b.WriteString(cell)
		if i < len(row)-1 {
			b.WriteString(strings.Repeat(" ", max(0, t.widths[i]-utf8.RuneCountInString(cell))+2))
		}
	}
	return b.String()
}

// print writes rows under their header.
func (t *table) print(w io.Writer, header []string, rows [][]string) error {
	t.fit(header)
	for _, r := range rows {
		t.fit(r)
	}
	var b strings.Builder
	for _, r := range append([][]string{header}, rows...) {
		b.WriteString(t.line(r) + "\n")
	}
	_, err := fmt.Fprint(w, b.String())
	return err
}

// word keeps a cell from being taken for two.
func word(s string) string { return strings.ReplaceAll(clean(s), " ", "?") }
