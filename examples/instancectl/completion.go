// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	_ "embed"
	"fmt"
)

// The scripts ask the program for the candidates; see complete.go.
var (
	//go:embed completion.bash
	bashScript string
	//go:embed completion.zsh
	zshScript string
	//go:embed completion.fish
	fishScript string
)

func completion(_ context.Context, p *program, args []string) error {
	fs := p.newFlags("completion", "SHELL", `Prints a script that has a SHELL, bash, zsh or fish, complete commands, flags, values and key names:

  bash  source <(instancectl completion bash)          in ~/.bashrc
  zsh   source <(instancectl completion zsh)           in ~/.zshrc, after compinit
  fish  instancectl completion fish | source           in ~/.config/fish/config.fish`)
	if err := p.parse(fs, args, "SHELL is missing: bash, zsh or fish"); err != nil {
		return err
	}
	script, ok := map[string]string{"bash": bashScript, "zsh": zshScript, "fish": fishScript}[fs.Arg(0)]
	if !ok {
		return badUsage("SHELL %.20q: use bash, zsh or fish", fs.Arg(0))
	}
	_, err := fmt.Fprint(p.stdout, script)
	return err
}
