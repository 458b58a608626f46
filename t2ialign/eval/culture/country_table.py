"""The countries of the world: code, name, continent, Wikidata number, adjective, other names.

Law of this file: a table and nothing else; `countries` reads it. Codes are those of ISO 3166-1 (XK for Kosovo, which
has none). A country in two continents stands under the first, with the second after a slash; which is first follows
the United Nations' geoscheme (M49). The Caribbean and Central America count to North America. Names say nothing of
recognition; a few territories that pictures are often placed in stand beside states.
"""

from __future__ import annotations

TABLE = """
DZ|Algeria|Africa|Q262|Algerian|
AO|Angola|Africa|Q916|Angolan|
BJ|Benin|Africa|Q962|Beninese|dahomey
BW|Botswana|Africa|Q963|Botswanan|
BF|Burkina Faso|Africa|Q965|Burkinabe|upper volta
BI|Burundi|Africa|Q967|Burundian|
CM|Cameroon|Africa|Q1009|Cameroonian|
CV|Cape Verde|Africa|Q1011|Cape Verdean|cabo verde
CF|Central African Republic|Africa|Q929|Central African|car
TD|Chad|Africa|Q657|Chadian|
KM|Comoros|Africa|Q970|Comorian|
CG|Republic of the Congo|Africa|Q971|Congolese|congo brazzaville,congo republic
CD|Democratic Republic of the Congo|Africa|Q974|Congolese|dr congo,drc,congo kinshasa,d r congo,zaire
DJ|Djibouti|Africa|Q977|Djiboutian|
EG|Egypt|Africa/Asia|Q79|Egyptian|arab republic of egypt
GQ|Equatorial Guinea|Africa|Q983|Equatoguinean|
ER|Eritrea|Africa|Q986|Eritrean|
SZ|Eswatini|Africa|Q1050|Swazi|swaziland
ET|Ethiopia|Africa|Q115|Ethiopian|
GA|Gabon|Africa|Q1000|Gabonese|
GM|Gambia|Africa|Q1005|Gambian|
GH|Ghana|Africa|Q117|Ghanaian|
GN|Guinea|Africa|Q1006|Guinean|
GW|Guinea-Bissau|Africa|Q1007|Bissau-Guinean|
CI|Ivory Coast|Africa|Q1008|Ivorian|cote d ivoire,cote divoire
KE|Kenya|Africa|Q114|Kenyan|
LS|Lesotho|Africa|Q1013|Basotho|
LR|Liberia|Africa|Q1014|Liberian|
LY|Libya|Africa|Q1016|Libyan|
MG|Madagascar|Africa|Q1019|Malagasy|
MW|Malawi|Africa|Q1020|Malawian|
ML|Mali|Africa|Q912|Malian|
MR|Mauritania|Africa|Q1025|Mauritanian|
MU|Mauritius|Africa|Q1027|Mauritian|
MA|Morocco|Africa|Q1028|Moroccan|
MZ|Mozambique|Africa|Q1029|Mozambican|
NA|Namibia|Africa|Q1030|Namibian|
NE|Niger|Africa|Q1032|Nigerien|
NG|Nigeria|Africa|Q1033|Nigerian|federal republic of nigeria
RW|Rwanda|Africa|Q1037|Rwandan|
ST|Sao Tome and Principe|Africa|Q1039|Sao Tomean|sao tome
SN|Senegal|Africa|Q1041|Senegalese|
SC|Seychelles|Africa|Q1042|Seychellois|
SL|Sierra Leone|Africa|Q1044|Sierra Leonean|
SO|Somalia|Africa|Q1045|Somali|
ZA|South Africa|Africa|Q258|South African|republic of south africa
SS|South Sudan|Africa|Q958|South Sudanese|
SD|Sudan|Africa|Q1049|Sudanese|
TZ|Tanzania|Africa|Q924|Tanzanian|united republic of tanzania
TG|Togo|Africa|Q945|Togolese|
TN|Tunisia|Africa|Q948|Tunisian|
UG|Uganda|Africa|Q1036|Ugandan|
ZM|Zambia|Africa|Q953|Zambian|
ZW|Zimbabwe|Africa|Q954|Zimbabwean|
AF|Afghanistan|Asia|Q889|Afghan|
AM|Armenia|Asia/Europe|Q399|Armenian|
AZ|Azerbaijan|Asia/Europe|Q227|Azerbaijani|
BH|Bahrain|Asia|Q398|Bahraini|
BD|Bangladesh|Asia|Q902|Bangladeshi|
BT|Bhutan|Asia|Q917|Bhutanese|
BN|Brunei|Asia|Q921|Bruneian|brunei darussalam
KH|Cambodia|Asia|Q424|Cambodian|kampuchea
CN|China|Asia|Q148|Chinese|people s republic of china,peoples republic of china,prc,p r china,mainland china
CY|Cyprus|Asia/Europe|Q229|Cypriot|
GE|Georgia|Asia/Europe|Q230|Georgian|republic of georgia,georgia country
HK|Hong Kong|Asia|Q8646|Hong Kong|hong kong sar
IN|India|Asia|Q668|Indian|bharat,republic of india
ID|Indonesia|Asia/Oceania|Q252|Indonesian|
IR|Iran|Asia|Q794|Iranian|islamic republic of iran,persia
IQ|Iraq|Asia|Q796|Iraqi|
IL|Israel|Asia|Q801|Israeli|
JP|Japan|Asia|Q17|Japanese|nippon
JO|Jordan|Asia|Q810|Jordanian|
KZ|Kazakhstan|Asia/Europe|Q232|Kazakh|
KW|Kuwait|Asia|Q817|Kuwaiti|
KG|Kyrgyzstan|Asia|Q813|Kyrgyz|kyrgyz republic
LA|Laos|Asia|Q819|Lao|lao pdr,lao people s democratic republic
LB|Lebanon|Asia|Q822|Lebanese|
MO|Macau|Asia|Q14773|Macanese|macao
MY|Malaysia|Asia|Q833|Malaysian|
MV|Maldives|Asia|Q826|Maldivian|
MN|Mongolia|Asia|Q711|Mongolian|
MM|Myanmar|Asia|Q836|Burmese|burma,myanmar burma
NP|Nepal|Asia|Q837|Nepali|
KP|North Korea|Asia|Q423|North Korean|dprk,democratic people s republic of korea
OM|Oman|Asia|Q842|Omani|
PK|Pakistan|Asia|Q843|Pakistani|
PS|Palestine|Asia|Q219060|Palestinian|state of palestine,palestinian territories
PH|Philippines|Asia|Q928|Filipino|republic of the philippines
QA|Qatar|Asia|Q846|Qatari|
SA|Saudi Arabia|Asia|Q851|Saudi|kingdom of saudi arabia,ksa
SG|Singapore|Asia|Q334|Singaporean|
KR|South Korea|Asia|Q884|South Korean|republic of korea,rok
LK|Sri Lanka|Asia|Q854|Sri Lankan|ceylon
SY|Syria|Asia|Q858|Syrian|syrian arab republic
TW|Taiwan|Asia|Q865|Taiwanese|republic of china,chinese taipei
TJ|Tajikistan|Asia|Q863|Tajik|
TH|Thailand|Asia|Q869|Thai|siam
TL|Timor-Leste|Asia/Oceania|Q574|Timorese|east timor
TR|Turkey|Asia/Europe|Q43|Turkish|turkiye,republic of turkey,republic of turkiye
TM|Turkmenistan|Asia|Q874|Turkmen|
AE|United Arab Emirates|Asia|Q878|Emirati|uae,u a e,emirates
UZ|Uzbekistan|Asia|Q265|Uzbek|
VN|Vietnam|Asia|Q881|Vietnamese|viet nam
YE|Yemen|Asia|Q805|Yemeni|
AL|Albania|Europe|Q222|Albanian|
AD|Andorra|Europe|Q228|Andorran|
AT|Austria|Europe|Q40|Austrian|
BY|Belarus|Europe|Q184|Belarusian|byelorussia
BE|Belgium|Europe|Q31|Belgian|
BA|Bosnia and Herzegovina|Europe|Q225|Bosnian|bosnia,bosnia herzegovina
BG|Bulgaria|Europe|Q219|Bulgarian|
HR|Croatia|Europe|Q224|Croatian|
CZ|Czech Republic|Europe|Q213|Czech|czechia
DK|Denmark|Europe|Q35|Danish|kingdom of denmark
EE|Estonia|Europe|Q191|Estonian|
FI|Finland|Europe|Q33|Finnish|
FR|France|Europe|Q142|French|french republic,metropolitan france
DE|Germany|Europe|Q183|German|federal republic of germany,deutschland
GR|Greece|Europe|Q41|Greek|hellas,hellenic republic
HU|Hungary|Europe|Q28|Hungarian|
IS|Iceland|Europe|Q189|Icelandic|
IE|Ireland|Europe|Q27|Irish|republic of ireland,eire
IT|Italy|Europe|Q38|Italian|italia,italian republic
XK|Kosovo|Europe|Q1246|Kosovar|
LV|Latvia|Europe|Q211|Latvian|
LI|Liechtenstein|Europe|Q347|Liechtenstein|
LT|Lithuania|Europe|Q37|Lithuanian|
LU|Luxembourg|Europe|Q32|Luxembourgish|
MT|Malta|Europe|Q233|Maltese|
MD|Moldova|Europe|Q217|Moldovan|republic of moldova
MC|Monaco|Europe|Q235|Monegasque|
ME|Montenegro|Europe|Q236|Montenegrin|
NL|Netherlands|Europe|Q55,Q29999|Dutch|holland,kingdom of the netherlands
MK|North Macedonia|Europe|Q221|Macedonian|macedonia
NO|Norway|Europe|Q20|Norwegian|
PL|Poland|Europe|Q36|Polish|
PT|Portugal|Europe|Q45|Portuguese|
RO|Romania|Europe|Q218|Romanian|
RU|Russia|Europe/Asia|Q159|Russian|russian federation
SM|San Marino|Europe|Q238|Sammarinese|
RS|Serbia|Europe|Q403|Serbian|
SK|Slovakia|Europe|Q214|Slovak|slovak republic
SI|Slovenia|Europe|Q215|Slovenian|
ES|Spain|Europe|Q29|Spanish|espana,kingdom of spain
SE|Sweden|Europe|Q34|Swedish|
CH|Switzerland|Europe|Q39|Swiss|swiss confederation
UA|Ukraine|Europe|Q212|Ukrainian|
GB|United Kingdom|Europe|Q145,Q21,Q22,Q25,Q26|British|uk,u k,great britain,britain,england,scotland,wales
VA|Vatican City|Europe|Q237|Vatican|holy see,vatican
AG|Antigua and Barbuda|North America|Q781|Antiguan|
BS|Bahamas|North America|Q778|Bahamian|
BB|Barbados|North America|Q244|Barbadian|
BZ|Belize|North America|Q242|Belizean|
CA|Canada|North America|Q16|Canadian|
CR|Costa Rica|North America|Q800|Costa Rican|
CU|Cuba|North America|Q241|Cuban|
DM|Dominica|North America|Q784|Dominican|
DO|Dominican Republic|North America|Q786|Dominican|
SV|El Salvador|North America|Q792|Salvadoran|
GL|Greenland|North America|Q223|Greenlandic|
GD|Grenada|North America|Q769|Grenadian|
GT|Guatemala|North America|Q774|Guatemalan|
HT|Haiti|North America|Q790|Haitian|
HN|Honduras|North America|Q783|Honduran|
JM|Jamaica|North America|Q766|Jamaican|
MX|Mexico|North America|Q96|Mexican|united mexican states
NI|Nicaragua|North America|Q811|Nicaraguan|
PA|Panama|North America|Q804|Panamanian|
PR|Puerto Rico|North America|Q1183|Puerto Rican|
KN|Saint Kitts and Nevis|North America|Q763|Kittitian|st kitts and nevis
LC|Saint Lucia|North America|Q760|Saint Lucian|st lucia
VC|Saint Vincent and the Grenadines|North America|Q757|Vincentian|st vincent and the grenadines,saint vincent
TT|Trinidad and Tobago|North America|Q754|Trinidadian|trinidad
US|United States|North America|Q30|American|usa,us,u s,u s a,united states of america,america
AU|Australia|Oceania|Q408|Australian|commonwealth of australia
FJ|Fiji|Oceania|Q712|Fijian|
KI|Kiribati|Oceania|Q710|I-Kiribati|
MH|Marshall Islands|Oceania|Q709|Marshallese|
FM|Micronesia|Oceania|Q702|Micronesian|federated states of micronesia
NR|Nauru|Oceania|Q697|Nauruan|
NZ|New Zealand|Oceania|Q664|New Zealand|aotearoa,aotearoa new zealand
PW|Palau|Oceania|Q695|Palauan|
PG|Papua New Guinea|Oceania|Q691|Papua New Guinean|
WS|Samoa|Oceania|Q683|Samoan|western samoa
SB|Solomon Islands|Oceania|Q685|Solomon Islander|
TO|Tonga|Oceania|Q678|Tongan|
TV|Tuvalu|Oceania|Q672|Tuvaluan|
VU|Vanuatu|Oceania|Q686|Vanuatuan|
AR|Argentina|South America|Q414|Argentine|argentine republic
BO|Bolivia|South America|Q750|Bolivian|plurinational state of bolivia
BR|Brazil|South America|Q155|Brazilian|brasil,federative republic of brazil
CL|Chile|South America|Q298|Chilean|
CO|Colombia|South America|Q739|Colombian|
EC|Ecuador|South America|Q736|Ecuadorian|
GY|Guyana|South America|Q734|Guyanese|
PY|Paraguay|South America|Q733|Paraguayan|
PE|Peru|South America|Q419|Peruvian|
SR|Suriname|South America|Q730|Surinamese|
UY|Uruguay|South America|Q77|Uruguayan|
VE|Venezuela|South America|Q717|Venezuelan|bolivarian republic of venezuela
"""
"""A line a country: code, name, continent(s), Wikidata number(s), adjective, other names in the form of
`countries.plain`. Facts from ISO 3166-1, M49 and Wikidata."""
