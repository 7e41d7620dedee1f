// SPDX-License-Identifier: Apache-2.0

package tpm

// OpenDevice opens what a Config without any device stands for.
var OpenDevice = dialDevice("")
