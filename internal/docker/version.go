// SPDX-License-Identifier: Apache-2.0

package docker

import "context"

// EngineVersion asks the engine at host ("" takes DOCKER_HOST, or the default
// socket) for its version. It takes at most 5 s.
func EngineVersion(ctx context.Context, host string) (version string, err error) {
	e, err := newEngineClient(host)
	if err != nil {
		return "", err
	}
	defer e.close()
	var res struct{ Version string }
	err = e.ask(ctx, "/version", nil, &res)
	return res.Version, err
}

// RunningNames asks the default engine for the names of its running containers.
func RunningNames(ctx context.Context) (names []string, err error) {
	err = engine(func(e *engineClient) error {
		return each(ctx, e, "/containers/json", nil, func(c *listed) { names = append(names, c.name()) })
	})
	return names, err
}
