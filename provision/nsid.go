// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// namespaceID is the id of the namespace behind fd as the host sees it. The
// host gives it one when it has none: only then do its events reach a socket in
// the host namespace (NETLINK_LISTEN_ALL_NSID).
func (k *Kernel) namespaceID(fd int) (id int, err error) {
	err = k.onHost(func(c *conn) error {
		if id, err = c.namespaceID(fd); err != nil || id != unix.NETNSA_NSID_NOT_ASSIGNED {
			return err
		}
		req := request(unix.RTM_NEWNSID, 0, nl.NewRtGenMsg(),
			numberAttr(unix.NETNSA_NSID, unix.NETNSA_NSID_NOT_ASSIGNED), numberAttr(unix.NETNSA_FD, fd))
		if err := c.do(req, nil); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("give the namespace an id: %w", err)
		}
		id, err = c.namespaceID(fd)
		return err
	})
	return id, err
}

// namespaceID is the id that the socket's namespace has for the one behind fd,
// or NETNSA_NSID_NOT_ASSIGNED.
func (c *conn) namespaceID(fd int) (int, error) {
	id := unix.NETNSA_NSID_NOT_ASSIGNED
	err := c.do(request(unix.RTM_GETNSID, 0, nl.NewRtGenMsg(), numberAttr(unix.NETNSA_FD, fd)), func(data []byte) {
		id = parseNamespaceID(data)
	})
	if err != nil {
		return id, fmt.Errorf("read the namespace's id: %w", err)
	}
	return id, nil
}

// namespaceIDs lists the ids of all namespaces that the socket's one knows.
func (c *conn) namespaceIDs() ([]int, error) {
	all, err := dump(c, request(unix.RTM_GETNSID, 0, nl.NewRtGenMsg()), func(data []byte) (int, bool) {
		id := parseNamespaceID(data)
		return id, id >= 0
	})
	if err != nil {
		return nil, fmt.Errorf("list namespace ids: %w", err)
	}
	return all, nil
}

func parseNamespaceID(data []byte) int {
	if len(data) >= unix.NLMSG_ALIGNTO { // struct rtgenmsg, aligned
		for typ, value := range attributes(data[unix.NLMSG_ALIGNTO:]) {
			if typ == unix.NETNSA_NSID {
				return number(value)
			}
		}
	}
	return unix.NETNSA_NSID_NOT_ASSIGNED
}
