// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"mvdhcp/internal/api"
)

func probeCommand() *cli.Command {
	return &cli.Command{
		Name:      "probe",
		Usage:     "ask which DHCP servers answer, without taking a lease",
		UsageText: "mvdhcp probe --parent IF [FLAGS]",
		Description: describeCommand(`
			Sends a DISCOVER on the parent's network and lists every server that offers an
			address within the window. An answer that is unlike the first one has a star
			where it differs. Exit status 3 when none answers.`,
			"mvdhcp probe --parent ens192.100"),
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "parent", Usage: "ask on `IF` or IF.VID"},
			&cli.DurationFlag{Name: "window", Usage: "wait `TIME` for answers", Value: api.DefaultWindow, DefaultText: "2s, and 3s more while none has answered"},
			&cli.StringFlag{Name: "vendor-class", Usage: "send `TEXT` as vendor class (option 60)"},
			&cli.StringFlag{Name: "client-id", Usage: "DHCP client identifier `ID`: text, hex:BYTES, 0xBYTES or duid"},
			&cli.StringFlag{Name: "mac", Usage: "ask with this `MAC`", DefaultText: "a random one"},
			jsonFlag(),
		},
		Action: probe,
	}
}

func probe(c *cli.Context) error {
	if err := noArgument(c); err != nil {
		return err
	}
	if err := explicitZero(c, "window"); err != nil {
		return err
	}
	req := api.ProbeRequest{
		Parent:      c.String("parent"),
		Window:      c.Duration("window"),
		VendorClass: c.String("vendor-class"),
		ClientID:    c.String("client-id"),
		MAC:         c.String("mac"),
	}
	if err := req.Validate(); err != nil {
		return inCommand(c, err)
	}
	if !c.IsSet("window") {
		req.Window = 0 // the keeper waits on for a slow server then
	}
	show := startProgress(c.App.ErrWriter, req.Parent)
	defer show.end()
	res, err := client(c).Probe(c.Context, req, show.say)
	show.end()
	var coded *api.Error
	if errors.As(err, &coded) && coded.Code == api.CodeNoAnswer && c.Bool("json") {
		return errors.Join(printJSON(c.App.Writer, api.ProbeResult{Parent: req.Parent}), err)
	}
	if err != nil {
		return err
	}
	if c.Bool("json") {
		err = printJSON(c.App.Writer, res)
	} else if len(res.Offers) > 0 {
		err = printOffers(c, res.Offers)
	}
	if err == nil && len(res.Offers) == 0 {
		within := ""
		if req.Window > 0 {
			within = fmt.Sprintf(" within %v", req.Window)
		}
		err = &api.Error{Code: api.CodeNoAnswer, Message: fmt.Sprintf("probe %s: no DHCP server answered%s: is this the right VLAN, and its server up?", req.Parent, within)}
	}
	return err
}

// printOffers marks what is unlike the first offer.
func printOffers(c *cli.Context, offers []api.ProbeOffer) error {
	header := []string{"SERVER", "SERVER-MAC", "ADDRESS", "SUBNET", "ROUTER", "LEASE", "DNS", "DOMAIN"}
	fields := []string{"server", "server_mac", "address", "subnet", "router", "lease_seconds", "dns", "domain"}
	var rows [][]string
	marked := false
	for _, o := range offers {
		row := []string{o.Server, o.ServerMAC, o.Address, o.Subnet, o.Router, strings.ReplaceAll(leaseTime(o.LeaseSeconds), " ", "-"), strings.Join(o.DNS, ","), o.Domain}
		for i, cell := range row {
			row[i] = word(cell)
			if slices.Contains(o.Differs, fields[i]) {
				row[i] = cmp.Or(row[i], "-") + "*"
				marked = true
			}
		}
		rows = append(rows, row)
	}
	if err := new(table).print(c.App.Writer, header, rows); err != nil || !marked {
		return err
	}
	_, err := fmt.Fprintf(c.App.Writer, "* unlike the answer of %s\n", clean(offers[0].Server))
	return err
}
