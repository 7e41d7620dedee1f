// SPDX-License-Identifier: Apache-2.0

package strictjson_test

import (
	"strings"
	"testing"

	"github.com/instancekey/instancekey/examples/internal/strictjson"
)

type document struct {
	Name  string            `json:"name"`
	Inner struct{ On bool } `json:"inner"`
	List  []struct {
		N int `json:"n"`
	} `json:"list"`
	Map map[string]int `json:"map"`
}

func TestUnmarshal(t *testing.T) {
	cases := map[string]string{
		`{"name":"x","inner":{"On":true},"list":[{"n":1}],"map":{"a":1}}` + "\n": "",
		`{}`:                        "",
		``:                          "EOF",
		`{"name":"x"`:               "EOF",
		`{"nam":"x"}`:               "unknown field",
		`{"Name":"x"}`:              "wrong case",
		`{"list":[{"N":1}]}`:        "wrong case",
		`{"inner":{"on":true}}`:     "wrong case",
		`{"list":[{"n":1,"m":2}]}`:  "unknown field",
		`{"name":"x","name":"x"}`:   "duplicate",
		`{"map":{"a":1,"a":1}}`:     "duplicate",
		`{"name":5}`:                "cannot unmarshal",
		`{"name":"x"} {"name":"y"}`: "after top-level value",
	}
	for text, want := range cases {
		var got document
		_, err := strictjson.Unmarshal([]byte(text), &got)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
		if err != nil && got.Name != "" {
			t.Errorf("%s: something was decoded", text)
		}
	}
	if len(cases) != 13 {
		t.Errorf("%d cases, want 13", len(cases))
	}
}

// TestLines: in a long file, whatever is wrong in one line is said with its number.
func TestLines(t *testing.T) {
	const wrong = 3004
	file := func(line string) []byte {
		lines := []string{`{"list": [`}
		for range 5000 {
			lines = append(lines, `  {"n": 1},`)
		}
		lines = append(lines, `  {"n": 1}], "map": {`, ` "a": 1`, `}}`)
		lines[wrong-1] = line
		return []byte(strings.Join(lines, "\n"))
	}
	for line, want := range map[string]string{
		`  {"n": "1"},`:           "line 3004: list[3002].n: cannot unmarshal: this is no number",
		`  {"n": 1.5},`:           "line 3004: list[3002].n: cannot unmarshal",
		`  {"n": 1, "m": 1},`:     `line 3004: list[3002].m: unknown field "m"`,
		`  {"N": 1},`:             `line 3004: list[3002].N: a member's name is in the wrong case: it is "n"`,
		`  {"n": 1, "n": 1},`:     "line 3004: list[3002].n: duplicate",
		`  ["n"],`:                "line 3004: list[3002]: cannot unmarshal: this is no object",
		`  {"n": 1}`:              "line 3005: ",
		`  {"n": 1},,`:            "line 3004: ",
		`  {"n" 1},`:              "line 3004: ",
		`  {n: 1},`:               "line 3004: ",
		`  {"n": 1}], "map": [],`: "line 3004: map: cannot unmarshal: this is no object",
		`  {"n": 1}]} {`:          "line 3004: there is more after top-level value",
	} {
		var got document
		_, err := strictjson.Unmarshal(file(line), &got)
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v, want %q", line, err, want)
		}
	}
	var got document
	lines, err := strictjson.Unmarshal(file(` {"n":2},`), &got)
	if err != nil || len(got.List) != 5001 || got.List[wrong-2].N != 2 || got.Map["a"] != 1 {
		t.Fatalf("%v, %d", err, len(got.List))
	}
	if lines["list[3002]"] != wrong || lines["map.a"] != 5003 {
		t.Errorf("lines %d and %d", lines["list[3002]"], lines["map.a"])
	}
	if err := lines.Errorf("list[3002]", "is %s", "bad"); err.Error() != "line 3004: list[3002]: is bad" {
		t.Error(err)
	}
}

// TestNull: null is what is left out, and the empty text a name in a map.
func TestNull(t *testing.T) {
	var got document
	if _, err := strictjson.Unmarshal([]byte(`{"map":{"":1}}`), &got); err != nil || got.Map[""] != 1 {
		t.Error(err)
	}
	if _, err := strictjson.Unmarshal([]byte(`{"name":null,"inner":null,"list":null,"map":null}`), &got); err != nil {
		t.Error(err)
	}
}
