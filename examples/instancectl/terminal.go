// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"
)

// clearLine takes back what stands on a terminal's line.
const clearLine = "\r\x1b[K"

// A progress says on a terminal what takes so long. It writes nothing before a second
// has passed, and takes it back before anything else is written there. The nil progress
// is for what is no terminal, and says nothing.
type progress struct {
	to io.Writer

	mu    sync.Mutex
	shown bool // a line of it stands there
}

// newProgress returns nil if to is no terminal.
func newProgress(to io.Writer) *progress {
	file, ok := to.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return nil
	}
	return &progress{to: file}
}

// step says from the first second on what is being done, until done is called.
func (p *progress) step(doing string) (done func()) {
	if p == nil {
		return func() {}
	}
	ended, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		began, tick := time.Now(), time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				p.show(fmt.Sprintf("%s … %.0f s", doing, time.Since(began).Seconds()))
			case <-ended:
				p.clear()
				return
			}
		}
	}()
	return sync.OnceFunc(func() { close(ended); <-stopped })
}

func (p *progress) show(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprint(p.to, clearLine, text)
	p.shown = true
}

func (p *progress) clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shown {
		fmt.Fprint(p.to, clearLine)
		p.shown = false
	}
}

// beside returns w, in the way of which the line is not.
func (p *progress) beside(w io.Writer) io.Writer {
	if p == nil {
		return w
	}
	return besideProgress{p, w}
}

type besideProgress struct {
	*progress
	w io.Writer
}

func (b besideProgress) Write(text []byte) (int, error) {
	b.clear()
	return b.w.Write(text)
}
