// SPDX-License-Identifier: Apache-2.0

// Asks npm's @simplewebauthn/server what it thinks of a registration with a key
// statement of this repository. A line of JSON on standard input has it:
//
//   response   RegistrationResponseJSON
//   challenge, origin, rpID   what the relying party expects
//   root       certificate of the attester's CA, PEM
//
// The answer to each is a line on standard output: {"verified":true}, or {"error":"…"}.
import { createInterface } from 'node:readline';

import { SettingsService, verifyRegistrationResponse } from '@simplewebauthn/server';

for await (const line of createInterface({ input: process.stdin })) {
  const { response, challenge, origin, rpID, root } = JSON.parse(line);
  SettingsService.setRootCertificates({ identifier: 'tpm', certificates: [root] });
  let answer;
  try {
    const { verified, registrationInfo } = await verifyRegistrationResponse({
      response, expectedChallenge: challenge, expectedOrigin: origin, expectedRPID: rpID,
    });
    answer = { verified, format: registrationInfo?.fmt };
  } catch (err) {
    answer = { error: err.message };
  }
  console.log(JSON.stringify(answer));
}
