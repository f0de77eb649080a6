// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
)

// failedDir is where the captures of failed tests are left.
func failedDir() string { return filepath.Join(os.TempDir(), "mvdhcp-failed") }

// save writes the capture to a file that Wireshark reads.
func (c *Capture) save() (string, error) {
	if err := os.MkdirAll(failedDir(), 0o755); err != nil {
		return "", err
	}
	name := strings.NewReplacer("/", "_", " ", "_").Replace(c.lab.tb.Name())
	file := filepath.Join(failedDir(), name+"-"+c.name+".pcap")
	return file, os.WriteFile(file, pcap(c.All()), 0o644)
}

// pcap is the packets in the classic format with microseconds
// (draft-ietf-opsawg-pcap).
func pcap(packets []Packet) []byte {
	const ethernet = 1
	var b bytes.Buffer
	put := func(v ...uint32) { _ = binary.Write(&b, binary.LittleEndian, v) }
	put(0xa1b2c3d4, 4<<16|2, 0, 0, 1<<16, ethernet)
	for _, p := range packets {
		size := uint32(len(p.Raw))
		put(uint32(p.Time.Unix()), uint32(p.Time.Nanosecond()/1000), size, size)
		b.Write(p.Raw)
	}
	return b.Bytes()
}

func le16(b []byte) uint16 { return binary.NativeEndian.Uint16(b) }
func le32(b []byte) uint32 { return binary.NativeEndian.Uint32(b) }
func le64(b []byte) uint64 { return binary.NativeEndian.Uint64(b) }
