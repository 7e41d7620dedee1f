// SPDX-License-Identifier: Apache-2.0

package tpm

import "fmt"

// tbsCode is a return code of Windows' TPM Base Services.
type tbsCode uint32

const (
	tbsCommandBlocked      tbsCode = 0x80280400
	tbsServiceNotRunning   tbsCode = 0x80284008
	tbsTooManyContexts     tbsCode = 0x80284009
	tbsTooManyResources    tbsCode = 0x8028400a
	tbsServiceStartPending tbsCode = 0x8028400b
	tbsCommandCanceled     tbsCode = 0x8028400d
	tbsTPMNotFound         tbsCode = 0x8028400f
	tbsServiceDisabled     tbsCode = 0x80284010
	tbsNoEventLog          tbsCode = 0x80284011
	tbsAccessDenied        tbsCode = 0x80284012
)

var tbsNames = map[tbsCode]string{
	tbsCommandBlocked:      "TPM_E_COMMAND_BLOCKED",
	tbsServiceNotRunning:   "TBS_E_SERVICE_NOT_RUNNING",
	tbsTooManyContexts:     "TBS_E_TOO_MANY_TBS_CONTEXTS",
	tbsTooManyResources:    "TBS_E_TOO_MANY_RESOURCES",
	tbsServiceStartPending: "TBS_E_SERVICE_START_PENDING",
	tbsCommandCanceled:     "TBS_E_COMMAND_CANCELED",
	tbsTPMNotFound:         "TBS_E_TPM_NOT_FOUND",
	tbsServiceDisabled:     "TBS_E_SERVICE_DISABLED",
	tbsNoEventLog:          "TBS_E_NO_EVENT_LOG",
	tbsAccessDenied:        "TBS_E_ACCESS_DENIED",
}

// Error gives the name in Microsoft's documentation ("TBS Return Codes"), or the
// number.
func (c tbsCode) Error() string {
	if name, ok := tbsNames[c]; ok {
		return name
	}
	return fmt.Sprintf("TBS return code %#x", uint32(c))
}
