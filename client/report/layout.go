// SPDX-License-Identifier: Apache-2.0

package report

// A layout is where the parts of Figure 1 are, in the units of the SVG.
type layout struct {
	width, height int
	boxes         []box
	spots         []spot
}

// A box is a party.
type box struct {
	party      Party
	x, y, w, h int
}

// A spot is where a step is drawn: its badge, the arrow if it is a message, its text.
type spot struct {
	id             StepID
	badgeX, badgeY int
	arrow          *arrow
	textX, textY   int
	middle         bool     // the text is centred
	lines          []string // of text
	hit            area     // to click on
	also           *also    // more text of it, elsewhere
}

// also is text.
type also struct {
	x, y  int
	lines []string
}

type arrow struct{ x1, y1, x2, y2 int }

type area struct{ x, y, w, h int }

const lineHeight = 16

// portrait is for the page: it fits a phone's width, also with wide letters.
var portrait = layout{
	width: 400, height: 584,
	boxes: []box{
		{Attester, 6, 6, 388, 92},
		{Instance, 6, 218, 388, 148},
		{Server, 6, 486, 388, 92},
	},
	spots: []spot{
		{id: CreateKey, badgeX: 34, badgeY: 276, textX: 56, textY: 281, lines: []string{"makes its key, in the TPM"}, hit: area{14, 256, 372, 50}},
		{id: SendEvidence, badgeX: 28, badgeY: 158, arrow: &arrow{28, 214, 28, 102}, textX: 46, textY: 140, lines: []string{"sends evidence", "of key, device,", "boot state"}, hit: area{8, 104, 156, 108}},
		{id: VerifyEvidence, badgeX: 34, badgeY: 66, textX: 56, textY: 71, lines: []string{"verifies it against its policy"}, hit: area{14, 42, 372, 50}},
		{id: Attestation, badgeX: 186, badgeY: 158, arrow: &arrow{186, 102, 186, 214}, textX: 204, textY: 148, lines: []string{"answers with", "attestation"}, hit: area{166, 104, 136, 108}},
		{id: Provisioned, badgeX: 322, badgeY: 158, arrow: &arrow{322, 102, 322, 214}, textX: 339, textY: 148, lines: []string{"or sent", "before"}, hit: area{304, 104, 90, 108}},
		{id: AskChallenge, badgeX: 28, badgeY: 426, arrow: &arrow{28, 370, 28, 482}, textX: 45, textY: 416, lines: []string{"asks for", "challenge"}, hit: area{8, 372, 104, 108}},
		{id: Challenge, badgeX: 128, badgeY: 426, arrow: &arrow{128, 482, 128, 370}, textX: 145, textY: 416, lines: []string{"answers", "with one"}, hit: area{114, 372, 92, 108}},
		{id: MakeProof, badgeX: 34, badgeY: 328, textX: 56, textY: 333, lines: []string{"signs the PoP JWT over the challenge"}, hit: area{14, 308, 372, 50}},
		{id: SendProof, badgeX: 222, badgeY: 426, arrow: &arrow{222, 370, 222, 482}, textX: 239, textY: 416, lines: []string{"sends", "both JWTs"}, hit: area{208, 372, 100, 108}},
		{id: Answer, badgeX: 324, badgeY: 426, arrow: &arrow{324, 482, 324, 370}, textX: 341, textY: 416, lines: []string{"decides,", "answers"}, hit: area{310, 372, 84, 108},
			also: &also{20, 546, []string{"verifies both, and the device by its policy"}}},
	},
}

// landscape is for documents.
var landscape = layout{
	width: 1000, height: 396,
	boxes: []box{
		{Attester, 8, 8, 206, 380},
		{Instance, 374, 8, 234, 380},
		{Server, 768, 8, 224, 380},
	},
	spots: []spot{
		{id: CreateKey, badgeX: 402, badgeY: 104, textX: 424, textY: 100, lines: []string{"makes its Client Instance", "Key, in the TPM"}},
		{id: SendEvidence, badgeX: 294, badgeY: 104, arrow: &arrow{370, 104, 218, 104}, textX: 294, textY: 64, middle: true, lines: []string{"sends evidence of", "key, device, boot"}},
		{id: VerifyEvidence, badgeX: 36, badgeY: 156, textX: 58, textY: 152, lines: []string{"verifies the evidence", "against its policy"}},
		{id: Attestation, badgeX: 294, badgeY: 212, arrow: &arrow{218, 212, 370, 212}, textX: 294, textY: 172, middle: true, lines: []string{"answers with a Client", "Attestation JWT"}},
		{id: Provisioned, badgeX: 294, badgeY: 322, arrow: &arrow{218, 322, 370, 322}, textX: 294, textY: 282, middle: true, lines: []string{"or: provisioned it", "beforehand"}},
		{id: AskChallenge, badgeX: 688, badgeY: 78, arrow: &arrow{612, 78, 764, 78}, textX: 688, textY: 54, middle: true, lines: []string{"asks for a challenge"}},
		{id: Challenge, badgeX: 688, badgeY: 146, arrow: &arrow{764, 146, 612, 146}, textX: 688, textY: 122, middle: true, lines: []string{"answers with one"}},
		{id: MakeProof, badgeX: 402, badgeY: 212, textX: 424, textY: 208, lines: []string{"signs the PoP JWT over", "the challenge"}},
		{id: SendProof, badgeX: 688, badgeY: 240, arrow: &arrow{612, 240, 764, 240}, textX: 688, textY: 200, middle: true, lines: []string{"sends attestation", "and PoP JWT"}},
		{
			id: Answer, badgeX: 688, badgeY: 334, arrow: &arrow{764, 334, 612, 334}, textX: 688, textY: 310, middle: true, lines: []string{"answers"},
			also: &also{784, 280, []string{"verifies both, and the", "device by its own policy,", "and answers"}},
		},
	},
}
