// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Bounds of what is taken from an engine: the size of an answer and of one event.
const (
	maxAnswer = 16 << 20
	maxEvent  = 1 << 20
)

// errNotFound is what an error is when the engine says that it has no such thing.
var errNotFound = errors.New("not found")

// notFoundError is how the engine puts that.
type notFoundError string

func (e notFoundError) Error() string      { return string(e) }
func (notFoundError) Is(target error) bool { return target == errNotFound }

// engineClient asks one Docker engine. It is safe for concurrent use.
type engineClient struct {
	base    string // of the API's paths
	http    *http.Client
	timeout time.Duration // of one answer
}

// newEngineClient returns the engine at host ("" takes DOCKER_HOST, or the default
// socket). Nothing is sent yet.
func newEngineClient(host string) (*engineClient, error) {
	dial, base, err := engineHost(host)
	if err != nil {
		return nil, fmt.Errorf("no way to the Docker engine: %w", err)
	}
	// The stream of events and one question at a time beside it.
	t := &http.Transport{DialContext: dial, MaxIdleConns: 2, IdleConnTimeout: 10 * time.Second}
	noRedirect := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &engineClient{base: base, http: &http.Client{Transport: t, CheckRedirect: noRedirect}, timeout: engineTimeout}, nil
}

func (e *engineClient) close() {
	e.http.CloseIdleConnections()
}

// get asks for path and leaves the answer's body, which is open, to the caller.
func (e *engineClient) get(ctx context.Context, path string, query url.Values) (io.ReadCloser, error) {
	// No version in the path: every engine then answers in its own newest one.
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker"+e.base+path+"?"+query.Encode(), nil)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	res, err := e.http.Do(req)
	if err != nil {
		var ue *url.Error // its text repeats the made-up URL
		if errors.As(err, &ue) {
			err = ue.Err
		}
		if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("no answer within %v: %w", time.Since(began).Round(100*time.Millisecond), err)
		}
		return nil, err
	}
	if res.StatusCode == http.StatusOK {
		return res.Body, nil
	}
	defer res.Body.Close()
	var said struct{ Message string }
	if err := json.NewDecoder(io.LimitReader(res.Body, 4096)).Decode(&said); err != nil || said.Message == "" {
		return nil, fmt.Errorf("status %s", res.Status)
	}
	if res.StatusCode == http.StatusNotFound {
		return nil, notFoundError(said.Message)
	}
	return nil, errors.New(said.Message)
}

// ask decodes the answer to one question into v.
func (e *engineClient) ask(ctx context.Context, path string, query url.Values, v any) error {
	ctx, cancel := context.WithTimeout(ctx, e.timeout)
	defer cancel()
	body, err := e.get(ctx, path, query)
	if err != nil {
		return err
	}
	defer body.Close()
	return decodeOne(body, v)
}

// each calls f with every element of the list that answers a question.
func each[T any](ctx context.Context, e *engineClient, path string, query url.Values, f func(*T)) error {
	ctx, cancel := context.WithTimeout(ctx, e.timeout)
	defer cancel()
	body, err := e.get(ctx, path, query)
	if err != nil {
		return err
	}
	defer body.Close()
	d := json.NewDecoder(&bounded{r: body, left: maxAnswer})
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		return errors.Join(errors.New("the answer is not a list"), err)
	}
	for d.More() {
		var v T
		if err := d.Decode(&v); err != nil {
			return fmt.Errorf("the answer can't be read: %w", err)
		}
		f(&v)
	}
	_, err = d.Token()
	return err
}

// filters are the values that a list or a stream is narrowed to, by name.
type filters map[string]map[string]bool

// add returns the filters with more values for a name.
func (f filters) add(name string, values ...string) filters {
	if f[name] == nil {
		f[name] = map[string]bool{}
	}
	for _, v := range values {
		f[name][v] = true
	}
	return f
}

// filtered is the query that carries filters.
func filtered(f filters) url.Values {
	b, err := json.Marshal(f)
	if err != nil {
		panic(err) // plain values only
	}
	return url.Values{"filters": {string(b)}}
}

func decodeOne(r io.Reader, v any) error {
	if err := json.NewDecoder(&bounded{r: r, left: maxAnswer}).Decode(v); err != nil {
		return fmt.Errorf("the answer can't be read: %w", err)
	}
	return nil
}

// inspect asks for a container by name, id or unique beginning of its id. The
// engine may hold the answer back while it starts the container.
func (e *engineClient) inspect(ctx context.Context, name string) (c Container, err error) {
	var res struct {
		ID    string `json:"Id"`
		Name  string
		State struct {
			Running bool
			Pid     int
		}
		Config     struct{ Hostname, MacAddress string }
		HostConfig struct{ NetworkMode string }
	}
	if err := e.ask(ctx, "/containers/"+url.PathEscape(name)+"/json", nil, &res); err != nil {
		return c, err
	}
	c = Container{ID: res.ID, Name: strings.TrimPrefix(res.Name, "/"), Hostname: res.Config.Hostname, MAC: res.Config.MacAddress, HostNetwork: res.HostConfig.NetworkMode == "host"}
	if res.State.Running {
		c.PID = res.State.Pid
	}
	return c, nil
}

// network asks for a network by id.
func (e *engineClient) network(ctx context.Context, id string) (n listedNetwork, err error) {
	err = e.ask(ctx, "/networks/"+url.PathEscape(id), nil, &n)
	return n, err
}

// lines returns a scanner of a stream of lines, each at most maxEvent long.
func lines(r io.Reader) *bufio.Scanner {
	s := bufio.NewScanner(r)
	s.Buffer(nil, maxEvent)
	return s
}

// bounded fails instead of reading more than is left.
type bounded struct {
	r    io.Reader
	left int
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, fmt.Errorf("it is larger than %d MiB", maxAnswer>>20)
	}
	n, err := b.r.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}
