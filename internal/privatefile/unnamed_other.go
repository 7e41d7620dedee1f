// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package privatefile

func createUnnamed(string, []byte) (done bool, err error) { return false, nil }
