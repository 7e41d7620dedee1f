// SPDX-License-Identifier: Apache-2.0

package interop_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/oauth2"
)

// keycloak is a running Keycloak with an empty database in memory.
type keycloak struct {
	URL   string // http on a loopback port
	admin *http.Client

	mu      sync.Mutex
	grown   *sync.Cond
	log     []string // what is in Keycloak's access log, "GET /path 200"
	sayings strings.Builder
	marks   int
}

// startKeycloak starts the Keycloak in the folder $KEYCLOAK_HOME, as
// .ci/keycloak prepares it, until the test ends. Without that variable the test
// is skipped, also where nothing else may be: "make test" needs no Java.
func startKeycloak(t *testing.T) *keycloak {
	t.Helper()
	home := os.Getenv("KEYCLOAK_HOME")
	if home == "" {
		t.Skip(`KEYCLOAK_HOME is not set: use "make interop-keycloak"`)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	_, port, _ := net.SplitHostPort(address)
	listener.Close()

	k := &keycloak{URL: "http://" + address}
	k.grown = sync.NewCond(&k.mu)
	// timeout ends it should this program be killed.
	cmd := exec.CommandContext(t.Context(), "timeout", "900", filepath.Join(home, "bin", "kc.sh"), "start", "--optimized",
		"--http-enabled=true", "--http-host=127.0.0.1", "--http-port="+port, "--hostname="+k.URL, "--cache=local",
		"--http-access-log-enabled=true", "--http-access-log-pattern="+accessLog+"%m %U %s",
		"--spi-public-key-storage--infinispan--min-time-between-requests=-1") // else a new key is not looked for within 10 s
	cmd.Env = append(os.Environ(),
		"KC_BOOTSTRAP_ADMIN_USERNAME=admin", "KC_BOOTSTRAP_ADMIN_PASSWORD=admin",
		"JAVA_OPTS_KC_HEAP=-Xms128m -Xmx768m", "JAVA_OPTS_APPEND=-XX:TieredStopAtLevel=1") // starts sooner
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 20 * time.Second
	out, in := io.Pipe()
	cmd.Stdout, cmd.Stderr = in, in
	started, ended := make(chan struct{}), make(chan struct{})
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go k.read(out, started)
	go func() {
		defer close(ended)
		_ = cmd.Wait() // it was interrupted
		in.Close()
	}()
	t.Cleanup(func() {
		<-ended // the test's context has ended
		if t.Failed() {
			k.mu.Lock()
			defer k.mu.Unlock()
			t.Logf("Keycloak said:\n%s", &k.sayings)
		}
	})
	select {
	case <-started:
	case <-ended:
		t.Fatal("Keycloak did not start")
	}
	k.admin = k.login(t)
	return k
}

const accessLog = "ACCESS "

// read reads what Keycloak says, its access log included.
func (k *keycloak) read(out io.Reader, started chan<- struct{}) {
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		line := lines.Text()
		if strings.Contains(line, "Listening on:") {
			close(started)
		}
		k.mu.Lock()
		if _, request, ok := strings.Cut(line, accessLog); ok {
			k.log = append(k.log, request)
			k.grown.Broadcast()
		} else if !strings.HasPrefix(line, "\tat ") { // a stack trace
			fmt.Fprintln(&k.sayings, line)
		}
		k.mu.Unlock()
	}
	_, _ = io.Copy(io.Discard, out)
}

// login returns an HTTP client of the administrator's, who stays logged in.
func (k *keycloak) login(t *testing.T) *http.Client {
	t.Helper()
	config := oauth2.Config{ClientID: "admin-cli", Endpoint: oauth2.Endpoint{
		TokenURL: k.URL + "/realms/master/protocol/openid-connect/token", AuthStyle: oauth2.AuthStyleInParams,
	}}
	token, err := config.PasswordCredentialsToken(t.Context(), "admin", "admin")
	if err != nil {
		t.Fatal(err)
	}
	return config.Client(t.Context(), token)
}

type bearer string

func (b bearer) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.Header.Set("Authorization", "Bearer "+string(b))
	return http.DefaultTransport.RoundTrip(req)
}

// create posts a file of the folder keycloak to the admin API, after edit has
// changed it.
func (k *keycloak) create(t *testing.T, path, file string, edit func(map[string]any)) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("keycloak", file))
	if err != nil {
		t.Fatal(err)
	}
	var content map[string]any
	if err := json.Unmarshal(text, &content); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	if edit != nil {
		edit(content)
	}
	if text, err = json.Marshal(content); err != nil {
		t.Fatal(err)
	}
	resp, err := k.admin.Post(k.URL+"/admin/realms"+path, "application/json", bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		body, _ := io.ReadAll(resp.Body)
		t.Fatalf("%s: %s %s", file, resp.Status, body)
	}
}

// newRealm makes a realm as the recipe says, whose attester's keys are at a URL,
// and returns its issuer identifier.
func (k *keycloak) newRealm(t *testing.T, name, jwksURL string) string {
	t.Helper()
	k.create(t, "", "realm.json", func(realm map[string]any) { realm["realm"] = name })
	k.create(t, "/"+name+"/identity-provider/instances", "attester.json", func(provider map[string]any) {
		provider["config"].(map[string]any)["jwksUrl"] = jwksURL
	})
	k.create(t, "/"+name+"/clients", "client.json", nil)
	k.create(t, "/"+name+"/clients", "client-dpop.json", nil)
	k.create(t, "/"+name+"/users", "user.json", nil)
	return k.URL + "/realms/" + name
}

// requests returns the requests below a path that Keycloak has logged since the
// last call, "POST …/token 200" to 2, and so on. want is what is awaited: a
// request is logged only after it was answered.
func (k *keycloak) requests(t *testing.T, below string, want int) map[string]int {
	t.Helper()
	k.mu.Lock()
	k.marks++
	mark := fmt.Sprintf("/mark-%d", k.marks)
	k.mu.Unlock()
	resp, err := http.Get(k.URL + mark)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()

	k.mu.Lock()
	defer k.mu.Unlock()
	late := false
	timer := time.AfterFunc(10*time.Second, func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		late = true
		k.grown.Broadcast()
	})
	defer timer.Stop()
	for {
		marked, counts, n := false, map[string]int{}, 0
		for _, request := range k.log {
			marked = marked || strings.Contains(request, mark+" ")
			if strings.Contains(request, below) && !strings.Contains(request, "/admin/") {
				n++
				fields := strings.Fields(strings.Replace(request, below, "", 1))
				path, _, _ := strings.Cut(fields[1], "?")
				counts[fields[0]+" "+path+" "+fields[2]]++
			}
		}
		if late || marked && n >= want {
			k.log = nil
			return counts
		}
		k.grown.Wait()
	}
}

// check compares the requests to a realm since the last check with want.
func (k *keycloak) check(t *testing.T, realm string, want map[string]int) {
	t.Helper()
	n := 0
	for _, count := range want {
		n += count
	}
	if got := k.requests(t, "/realms/"+realm, n); !maps.Equal(got, want) {
		t.Errorf("Keycloak logged %v, want %v", got, want)
	}
}

// loginForm finds where Keycloak's page posts user name and password to.
var loginForm = regexp.MustCompile(`id="kc-form-login"[^>]* action="([^"]+)"`)

// signIn is the user in the browser, who logs in at Keycloak's page. It returns
// the authorization code.
func signIn(t *testing.T, authorize string) string {
	t.Helper()
	browser := newBrowser(t)
	resp, err := browser.Get(authorize)
	if err != nil {
		t.Fatal(err)
	}
	page, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	action := loginForm.FindSubmatch(page)
	if action == nil {
		t.Fatalf("%s without a login form: %.2000s", resp.Status, page)
	}
	resp, err = browser.PostForm(html.UnescapeString(string(action[1])), url.Values{"username": {"alice"}, "password": {"alice"}})
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	code := query(t, resp.Header.Get("Location")).Get("code")
	if code == "" {
		t.Fatalf("no code after the login: %s", resp.Status)
	}
	return code
}
