// Package strictjson reads configuration that people write: a member that is
// misspelt, or there twice, must not be taken for one left out.
package strictjson

import (
	"bytes"
	stdjson "encoding/json"
	"errors"
	"reflect"

	"github.com/go-jose/go-jose/v4/json"
)

// Unmarshal decodes JSON into dest, a pointer to a zero value. Unknown and
// duplicate members, members in another case, and anything after the value are
// errors.
//
// It asks two decoders. Go's refuses unknown members, but takes "PCRS" for
// "pcrs", and the last of two; go-jose's refuses duplicates, and passes over
// what it does not know, by its exact name. What both understand alike has
// neither defect.
func Unmarshal[T any](data []byte, dest *T) error {
	decoder := stdjson.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	var first, second T
	if err := decoder.Decode(&first); err != nil {
		return err
	}
	if err := json.Unmarshal(bytes.TrimSpace(data), &second); err != nil {
		return err
	}
	if !reflect.DeepEqual(first, second) {
		return errors.New("a member's name is in the wrong case")
	}
	*dest = first
	return nil
}
