// SPDX-License-Identifier: Apache-2.0

package tpmtest

import (
	"fmt"
	"strings"

	"github.com/google/go-tpm/tpm2"
)

var commandNames = map[tpm2.TPMCC]string{
	tpm2.TPMCCActivateCredential: "ActivateCredential",
	tpm2.TPMCCCertify:            "Certify",
	tpm2.TPMCCCertifyCreation:    "CertifyCreation",
	tpm2.TPMCCClear:              "Clear",
	tpm2.TPMCCContextLoad:        "ContextLoad",
	tpm2.TPMCCContextSave:        "ContextSave",
	tpm2.TPMCCCreate:             "Create",
	tpm2.TPMCCCreatePrimary:      "CreatePrimary",
	tpm2.TPMCCEvictControl:       "EvictControl",
	tpm2.TPMCCFlushContext:       "FlushContext",
	tpm2.TPMCCGetCapability:      "GetCapability",
	tpm2.TPMCCGetRandom:          "GetRandom",
	tpm2.TPMCCImport:             "Import",
	tpm2.TPMCCLoad:               "Load",
	tpm2.TPMCCNVRead:             "NV_Read",
	tpm2.TPMCCNVReadPublic:       "NV_ReadPublic",
	tpm2.TPMCCPCREvent:           "PCR_Event",
	tpm2.TPMCCPCRExtend:          "PCR_Extend",
	tpm2.TPMCCPCRRead:            "PCR_Read",
	tpm2.TPMCCPolicyAuthValue:    "PolicyAuthValue",
	tpm2.TPMCCPolicyGetDigest:    "PolicyGetDigest",
	tpm2.TPMCCPolicyPCR:          "PolicyPCR",
	tpm2.TPMCCPolicyRestart:      "PolicyRestart",
	tpm2.TPMCCPolicySecret:       "PolicySecret",
	tpm2.TPMCCQuote:              "Quote",
	tpm2.TPMCCReadPublic:         "ReadPublic",
	tpm2.TPMCCShutdown:           "Shutdown",
	tpm2.TPMCCSign:               "Sign",
	tpm2.TPMCCStartAuthSession:   "StartAuthSession",
	tpm2.TPMCCStartup:            "Startup",
}

// Names writes command codes as people say them: "ContextLoad Sign".
func Names(codes []tpm2.TPMCC) string {
	names := make([]string, len(codes))
	for i, code := range codes {
		name, ok := commandNames[code]
		if !ok {
			name = fmt.Sprintf("%#x", uint32(code))
		}
		names[i] = name
	}
	return strings.Join(names, " ")
}
