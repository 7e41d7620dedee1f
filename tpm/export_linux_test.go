// SPDX-License-Identifier: Apache-2.0

package tpm

// PlaceOf returns the folder of a device file's device in /sys/devices.
var PlaceOf = placeOf
