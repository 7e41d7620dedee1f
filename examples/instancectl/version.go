// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"
)

// versionView is what go build notes of the program.
type versionView struct {
	Version  string `json:"version"`            // of the module: "(devel)" if it was built from a folder
	Revision string `json:"revision,omitempty"` // of the repository
	Time     string `json:"time,omitempty"`     // of the revision
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func version(_ context.Context, p *program, args []string) error {
	fs := p.newFlags("version", "", "Says which version this is, and with what it was built.")
	asJSON := fs.Bool("json", false, "print one JSON object on one line")
	if err := p.parse(fs, args, ""); err != nil {
		return err
	}
	view := versionView{Version: "unknown", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		view.Version = info.Main.Version
		for _, setting := range info.Settings {
			switch setting.Key {
			case "vcs.revision":
				view.Revision = setting.Value
			case "vcs.time":
				view.Time = setting.Value
			}
		}
	}
	if *asJSON {
		return json.NewEncoder(p.stdout).Encode(view)
	}
	text := "instancectl " + view.Version
	if view.Revision != "" {
		text += " (" + view.Revision + ", " + view.Time + ")"
	}
	_, err := fmt.Fprintf(p.stdout, "%s, %s, %s\n", text, view.Go, view.Platform)
	return err
}
