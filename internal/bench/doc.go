// SPDX-License-Identifier: Apache-2.0

// Package bench measures this module on a TPM that is as slow as a chip, beside keys in
// software and beside others' packages. It is a module of its own, since nobody else is to
// have those in his module graph.
//
// Its tests count: signatures, commands, refusals. Times are printed, and drawn, by
//
//	make bench
//
// which writes the plots that the README shows. Series that are compared run at the same
// time or in turns, since other programs are at work on every machine.
package bench
