// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"strings"
)

// ClusterPrefix marks an identity that is the same on every host: the machine
// id, and the name that the parent has there, are left out of what is derived
// from it.
const ClusterPrefix = "cluster:"

// DeriveMAC returns the MAC of a child: locally administered, unicast, and the
// same whenever machine id, parent, identity and interface name are the same; of
// a cluster's identity, whenever identity and interface name are.
func DeriveMAC(machineID, parent, identity, ifname string) net.HardwareAddr {
	if strings.HasPrefix(identity, ClusterPrefix) {
		machineID, parent = "", ""
	}
	sum := derive("mac", machineID, parent, identity, ifname)
	mac := net.HardwareAddr(sum[:6])
	mac[0] = mac[0]&^0x01 | 0x02
	return mac
}

// ParseClientID turns the value of --client-id into option 61, type byte first
// (RFC 2132, 9.14). It takes "" (01 and the MAC), "duid" (RFC 4361: an IAID from
// the interface and a DUID-UUID of this machine, or of the cluster's identity), hexadecimal after "hex:" or
// "0x" (sent as it is), and any other text, which is sent with type 0.
func ParseClientID(s string, mac net.HardwareAddr, machineID, identity, ifname string) ([]byte, error) {
	switch {
	case s == "":
		return append([]byte{1}, mac...), nil
	case s == "duid":
		iaid := derive("iaid", identity, ifname)
		id := append([]byte{255}, iaid[:4]...)
		uuid := derive("duid", machineID)
		if strings.HasPrefix(identity, ClusterPrefix) {
			uuid = derive("duid", "", identity)
		}
		return append(append(id, 0, 4), uuid[:16]...), nil // DUID-UUID: RFC 6355
	}
	hexa, isHex := strings.CutPrefix(s, "hex:")
	if !isHex {
		hexa, isHex = strings.CutPrefix(s, "0x")
	}
	if !isHex {
		return clientIDSize(s, append([]byte{0}, s...))
	}
	b, err := hex.DecodeString(strings.ReplaceAll(hexa, ":", ""))
	if err != nil {
		return nil, fmt.Errorf("client id %q: not hexadecimal", s)
	}
	return clientIDSize(s, b)
}

// clientIDSize holds id to what option 61 can carry: at least a type and one
// byte, at most 255.
func clientIDSize(s string, id []byte) ([]byte, error) {
	if len(id) < 2 || len(id) > 255 {
		return nil, fmt.Errorf("client id %q: must be 2 to 255 bytes, it is %d", s, len(id))
	}
	return id, nil
}

// derive hashes the parts so that no two lists of parts collide by joining.
func derive(parts ...string) [sha256.Size]byte {
	h := sha256.New()
	h.Write([]byte("mvdhcp"))
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// newID returns a fresh lease id: 12 hexadecimal digits.
func newID() string {
	var b [6]byte
	rand.Read(b[:]) // never fails: crypto/rand.Read
	return hex.EncodeToString(b[:])
}
