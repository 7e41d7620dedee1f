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
		err := strictjson.Unmarshal([]byte(text), &got)
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
