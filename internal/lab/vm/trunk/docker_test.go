// SPDX-License-Identifier: Apache-2.0

//go:build vm

package trunk

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestDockerNetworks: the network driver makes a missing VLAN parent with the
// first network on it and removes it with the last one, also when the keeper
// was killed meanwhile; one that was there before stays.
func TestDockerNetworks(t *testing.T) {
	plugin := filepath.Join(t.TempDir(), "p.sock")
	t.Setenv("DOCKER_HOST", "unix:///nonexistent.sock")
	l, k := newLAN(t), newKeeper(t, "--docker", "--docker-socket", plugin)
	call := func(method, body string) map[string]any {
		t.Helper()
		c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", plugin)
		}}}
		res, err := c.Post("http://plugin/NetworkDriver."+method, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatalf("%s: %v", method, err)
		}
		defer res.Body.Close()
		var answer map[string]any
		if err := json.NewDecoder(res.Body).Decode(&answer); err != nil || answer["Err"] != nil {
			t.Fatalf("%s: %v, %v", method, answer, err)
		}
		return answer
	}
	create := func(id, parent string) {
		t.Helper()
		call("CreateNetwork", fmt.Sprintf(`{"NetworkID":%q,"Options":{"com.docker.network.generic":{"parent":%q,"release-delay":"0s"}}}`, id, parent))
	}
	remove := func(id string) {
		t.Helper()
		call("DeleteNetwork", fmt.Sprintf(`{"NetworkID":%q}`, id))
	}
	create("n1", "ens192.100")
	made(t, "ens192.100", 100)
	create("n2", "ens192.100")
	const endpoint = `{"NetworkID":"n1","EndpointID":"0123456789abcdef","Interface":{}}`
	is := call("CreateEndpoint", endpoint)["Interface"].(map[string]any)
	mac := is["MacAddress"].(string)
	if held := l.servers[100].holds(mac, network[100]); is["Address"] != held+"/24" {
		t.Errorf("answered %v, the server holds %s", is, held)
	}
	call("DeleteEndpoint", endpoint)
	l.servers[100].freed(mac)
	made(t, "ens192.100", 100)
	remove("n1")
	made(t, "ens192.100", 100) // n2 is on it
	k.stop(syscall.SIGKILL)
	k.start()
	remove("n2")
	absent(t, "ens192.100")

	ip(t, "link add link ens192 name ens192.101 type vlan id 101")
	t.Cleanup(func() { ip(t, "link del ens192.101") })
	create("n3", "ens192.101")
	remove("n3")
	if _, there := links(t, "")["ens192.101"]; !there {
		t.Error("a VLAN link that was there before is gone")
	}
}
